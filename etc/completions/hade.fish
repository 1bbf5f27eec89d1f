# For fish: commands, options, and settings as the program's own help has them.

complete -c hade -f
complete -c hade -n __fish_use_subcommand -a app
complete -c hade -n __fish_use_subcommand -l help -d 'what there is'
complete -c hade -n __fish_use_subcommand -l version -d 'print the version'

set -l words 'test (count (commandline -opc)) -eq 2'
complete -c hade -n $words -a start -d 'serve'
complete -c hade -n $words -a state -d 'how is it?'
complete -c hade -n $words -a stop -d 'finish what is in flight, then leave'
complete -c hade -n $words -a restart -d 'a new generation, in place'
complete -c hade -n $words -a check -d 'are the settings good?'

set -l seen __fish_seen_subcommand_from
complete -c hade -n "$seen start" -s d -l daemon -d 'in the background'
complete -c hade -n "$seen start" -l ready-fd -x -d 'where to write a newline once it serves'
complete -c hade -n "$seen state" -l json -d 'for programs'
complete -c hade -n "$seen state" -l probe -d 'a health check'
complete -c hade -n "$seen stop" -l force -d 'kill it after the wait'
complete -c hade -n "$seen restart" -l cold -d 'stop, then start'
complete -c hade -n "$seen start restart check" -l root -x -a '(__fish_complete_directories)' -d 'whose files are served'
complete -c hade -n "$seen start restart check" -l address -x -a ':8888 localhost: unix:' -d 'where to listen'
set -l any "$seen start state stop restart check"
complete -c hade -n $any -l base-dir -x -a '(__fish_complete_directories)' -d 'where relative paths start'
complete -c hade -n $any -l config -r -F -d 'settings file'
complete -c hade -n $any -l set -x -d 'a setting' -a \
    '(hade app start --help | string replace -rf "^  app\.([a-z_]+) +(.*)" "\$1=\t\$2")'
complete -c hade -n $any -s h -l help -d 'options, examples, exit status'
