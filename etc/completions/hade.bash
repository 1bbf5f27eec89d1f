# For bash: commands, options and settings as the program's own help has them. For a program that is made with hade:
# complete -F _hade NAME

_hade() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words
	COMPREPLY=()
	case $prev in
	--base-dir | --root)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -d -- "$cur")
		return
		;;
	--config)
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
		;;
	--set)
		compopt -o nospace
		words=$("$1" app start --help 2> /dev/null | sed -n 's/^  app\.\([a-z_]*\) .*/\1=/p')
		;;
	--address) words='localhost: unix:' && compopt -o nospace ;;
	--ready-fd) words=3 ;;
	*)
		case $COMP_CWORD in
		1) words='app --help --version' ;;
		2) words=$("$1" app --help 2> /dev/null | sed -n '/^Commands/,/^$/s/^  \([a-z]*\) .*/\1/p') ;;
		*) words=$("$1" app "${COMP_WORDS[2]}" --help 2> /dev/null | sed -n 's/^  \(-[a-z], \)*\(--[a-z-]*\).*/\2/p') ;;
		esac
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _hade hade
