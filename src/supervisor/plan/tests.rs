//! What is to happen, event by event.

use super::*;
use Action::{
    Announce, Check, CountDeath, Execute, Kill, KillCheck, Leave, NotRestarted, Prepare, Refuse,
    Restarted, Return, Say, Spawn, Unlisten,
};

const CLOSE_WAIT: Duration = Duration::from_secs(5);

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

/// A plan with a clock that the test sets, in milliseconds.
struct Story {
    plan: Plan,
    start: Instant,
}

impl Story {
    fn new(workers: usize) -> Story {
        Story {
            plan: Plan::new(workers, CLOSE_WAIT),
            start: Instant::now(),
        }
    }

    fn serving(workers: usize) -> Story {
        let mut story = Story::new(workers);
        for number in 0..workers as i32 {
            story.at(0, Event::Spawned(pid(100 + number)));
            story.at(0, Event::Ready(pid(100 + number)));
        }
        story
    }

    fn at(&mut self, millis: u64, event: Event) -> Vec<Action> {
        self.plan
            .step(self.start + Duration::from_millis(millis), event)
    }

    fn died(&mut self, millis: u64, number: i32) -> Vec<Action> {
        self.at(millis, Event::Died(pid(number), "exited, status 1".into()))
    }

    fn deadline(&self) -> Option<u64> {
        self.plan
            .deadline()
            .map(|at| (at - self.start).as_millis() as u64)
    }
}

fn drain(number: i32) -> Action {
    Action::Drain {
        pid: pid(number),
        within: CLOSE_WAIT,
        why: Going::Stop,
    }
}

fn replace(number: i32, heir: i32) -> Action {
    Action::Drain {
        pid: pid(number),
        within: CLOSE_WAIT,
        why: Going::Replaced(Some(pid(heir))),
    }
}

fn inherit(number: i32, heir: i32) -> Action {
    Action::Inherit {
        pid: pid(number),
        heir: pid(heir),
    }
}

fn failed(why: &str) -> Action {
    Leave(Outcome::Failed(why.into()))
}

#[test]
fn announces_once_and_only_when_all_serve() {
    let mut story = Story::new(2);
    assert_eq!(story.plan.begin(), [Spawn, Spawn]);
    story.at(0, Event::Spawned(pid(2)));
    story.at(0, Event::Spawned(pid(3)));
    assert_eq!(story.deadline(), Some(10_000));
    assert_eq!(story.at(1, Event::Ready(pid(2))), []);
    assert_eq!(story.at(2, Event::Ready(pid(3))), [Announce]);
    assert_eq!(story.at(3, Event::Ready(pid(3))), []);
    assert_eq!(story.deadline(), None);
}

#[test]
fn a_start_that_fails_ends_at_once_with_the_reason() {
    let mut story = Story::new(1);
    assert_eq!(
        story.at(0, Event::NotSpawned("no".into())),
        [Unlisten, failed("cannot start a worker: no")]
    );

    let mut story = Story::new(1);
    story.at(0, Event::Spawned(pid(2)));
    story.at(1, Event::Failed(pid(2), "no room".into()));
    assert_eq!(story.died(2, 2), [Unlisten, failed("worker 2: no room")]);

    let mut story = Story::new(2);
    story.at(0, Event::Spawned(pid(2)));
    story.at(0, Event::Spawned(pid(3)));
    assert_eq!(story.died(1, 2), [Unlisten, Kill(pid(3))]);
    assert_eq!(
        story.died(2, 3),
        [failed("worker 2: exited, status 1 before it was ready")]
    );
}

#[test]
fn a_worker_that_hangs_at_boot_is_killed() {
    let mut story = Story::new(1);
    story.at(0, Event::Spawned(pid(2)));
    assert_eq!(story.at(9_999, Event::Tick), []);
    let why = "worker 2: not ready after 10 s";
    assert_eq!(
        story.at(10_000, Event::Tick),
        [Kill(pid(2)), Unlisten],
        "said at once, whenever the kernel lets go of it"
    );
    assert_eq!(story.deadline(), None);
    assert_eq!(story.died(10_001, 2), [failed(why)]);
}

#[test]
fn a_dead_worker_is_replaced_at_once() {
    let mut story = Story::serving(2);
    assert_eq!(
        story.died(7_000, 101),
        [
            CountDeath,
            Say("worker 101 exited, status 1, up 7 s".into()),
            Spawn
        ]
    );
    assert_eq!(story.died(7_000, 99), [], "not a worker");
}

#[test]
fn deaths_in_a_row_wait_longer_and_are_never_given_up() {
    let mut story = Story::serving(1);
    let mut now = 0;
    for number in 100..104 {
        assert_eq!(story.died(now, number).last(), Some(&Spawn));
        story.at(now, Event::Spawned(pid(number + 1)));
        story.at(now, Event::Ready(pid(number + 1)));
    }
    let waits = [1000, 2000, 4000].into_iter().chain([8000; 100]);
    for (number, wait) in (104..).zip(waits) {
        let said = story.died(now, number);
        assert!(
            matches!(&said[..], [CountDeath, Say(text)] if text.ends_with(&format!("in {} s", wait / 1000))),
            "{said:?}"
        );
        assert!(story.plan.trouble().unwrap().starts_with("worker "));
        assert_eq!(story.deadline(), Some(now + wait));
        assert_eq!(story.at(now + wait - 1, Event::Tick), []);
        now += wait;
        assert_eq!(story.at(now, Event::Tick), [Spawn]);
        story.at(now, Event::Spawned(pid(number + 1)));
        story.at(now, Event::Ready(pid(number + 1)));
        assert_eq!(story.plan.trouble(), None);
    }
}

#[test]
fn deaths_of_one_moment_count_once_and_share_a_wait() {
    let mut story = Story::serving(9);
    for number in 100..109 {
        assert_eq!(story.died(number as u64, number).last(), Some(&Spawn));
    }
    // The same again and again, with less than a second between: these are other deaths.
    let mut story = Story::serving(1);
    for number in 100..104 {
        assert_eq!(story.died(number as u64, number).last(), Some(&Spawn));
        story.at(number as u64, Event::Spawned(pid(number + 1)));
        story.at(number as u64, Event::Ready(pid(number + 1)));
    }
    assert!(matches!(&story.died(104, 104)[..], [CountDeath, Say(_)]));

    // All that boots fails: one wait for all, and then all of them.
    let mut story = Story::serving(3);
    for number in 100..103 {
        assert_eq!(story.died(0, number).last(), Some(&Spawn));
        story.at(1, Event::Spawned(pid(number + 10)));
    }
    for number in 110..113 {
        let said = story.died(number as u64, number);
        assert!(
            matches!(&said[..], [Say(text)] if text.ends_with("in 1 s")),
            "{said:?}"
        );
    }
    assert_eq!(story.deadline(), Some(1110));
    assert_eq!(story.at(1110, Event::Tick), [Spawn, Spawn, Spawn]);
}

#[test]
fn who_was_told_to_leave_by_a_stranger_is_replaced_before_it_is_gone() {
    let mut story = Story::serving(1);
    let within = Duration::from_secs(3);
    assert_eq!(
        story.at(0, Event::Leaves(pid(100), within)),
        [Say("worker 100 was told to leave".into()), Spawn]
    );
    story.at(0, Event::Spawned(pid(101)));
    story.at(1, Event::Ready(pid(101)));
    assert_eq!(story.plan.stage(pid(100)), Some(Stage::Draining));
    assert_eq!(
        story.at(2, Event::Leaves(pid(100), within)),
        [],
        "told twice"
    );
    assert_eq!(story.deadline(), Some(3_500));
    assert_eq!(story.died(3_000, 100), []);
}

#[test]
fn who_hangs_is_killed_and_replaced_before_it_is_collected() {
    let mut story = Story::serving(1);
    let how = "has not moved for 21 s";
    assert_eq!(
        story.at(0, Event::Late(pid(100), how.into())),
        [
            Kill(pid(100)),
            CountDeath,
            Say("worker 100 has not moved for 21 s, it is killed".into()),
            Spawn
        ]
    );
    assert_eq!(story.at(0, Event::Late(pid(100), how.into())), []);
    assert_eq!(story.deadline(), None);
    story.at(0, Event::Spawned(pid(101)));
    assert_eq!(story.died(50, 100), []);
}

#[test]
fn deaths_far_apart_are_no_pattern() {
    let mut story = Story::serving(1);
    for round in 0..20 {
        let number = 100 + round as i32;
        assert_eq!(story.died(round * 20_000, number).last(), Some(&Spawn));
        story.at(round * 20_000, Event::Spawned(pid(number + 1)));
        story.at(round * 20_000, Event::Ready(pid(number + 1)));
    }
}

#[test]
fn a_respawn_that_fails_at_boot_waits_from_the_first_time_on() {
    let mut story = Story::serving(1);
    story.died(0, 100);
    story.at(0, Event::Spawned(pid(101)));
    assert!(
        matches!(&story.died(1, 101)[..], [Say(text)] if text.ends_with("before it was ready; the next one starts in 1 s"))
    );
    assert_eq!(story.at(1001, Event::Tick), [Spawn]);
    let said = story.at(1001, Event::NotSpawned("no".into()));
    assert_eq!(
        said,
        [Say(
            "cannot start a worker: no; the next one starts in 2 s".into()
        )]
    );
    assert_eq!(
        story.at(1500, Event::Stop),
        [Unlisten, Leave(Outcome::Stopped)]
    );
}

#[test]
fn stop_drains_then_kills_and_twice_means_now() {
    let mut story = Story::serving(2);
    assert_eq!(story.at(0, Event::Stop), [Unlisten, drain(100), drain(101)]);
    assert_eq!(story.died(10, 100), []);
    assert_eq!(story.deadline(), Some(5_500));
    assert_eq!(
        story.at(20, Event::Stop),
        [Action::Drain {
            pid: pid(101),
            within: Duration::ZERO,
            why: Going::Stop
        }]
    );
    assert_eq!(story.deadline(), Some(520));
    let late = Say("worker 101 did not leave in time and was killed".into());
    assert_eq!(story.at(520, Event::Tick), [Kill(pid(101)), late]);
    assert_eq!(story.at(530, Event::Tick), []);
    assert_eq!(story.died(540, 101), [Leave(Outcome::Stopped)]);
}

fn passed(number: i32, stage: Stage) -> Passed {
    Passed {
        pid: pid(number),
        stage,
        kill_in: None,
    }
}

fn back(why: &str) -> Action {
    Return(why.into())
}

/// As after an exec: 50 and 51 are the old ones.
fn replacing(workers: usize) -> Story {
    let start = Instant::now();
    let mut story = Story {
        plan: Plan::resume(
            workers,
            CLOSE_WAIT,
            start,
            &[passed(50, Stage::Serving), passed(51, Stage::Serving)],
        ),
        start,
    };
    assert_eq!(story.plan.begin(), vec![Spawn; workers]);
    for number in 0..workers as i32 {
        story.at(0, Event::Spawned(pid(60 + number)));
    }
    story
}

#[test]
fn a_restart_checks_then_executes_and_there_is_one_at_a_time() {
    let mut story = Story::new(1);
    assert_eq!(
        story.at(0, Event::Restart),
        [Refuse("it is starting".into())]
    );
    let mut story = Story::serving(1);
    assert_eq!(story.at(0, Event::Restart), [Check]);
    assert_eq!(
        story.at(1, Event::Restart),
        [Refuse("a restart is under way".into())]
    );
    assert_eq!(
        story.at(2, Event::Checked(Err("bad".into()))),
        [NotRestarted("bad".into())]
    );
    assert_eq!(story.at(3, Event::Restart), [Check]);
    assert_eq!(story.at(4, Event::Checked(Ok(()))), [Execute]);
    assert_eq!(
        story.at(5, Event::NotExecuted("gone".into())),
        [NotRestarted("gone".into())]
    );
    assert_eq!(story.at(6, Event::Restart), [Check]);
    assert_eq!(story.deadline(), Some(10_006));
    let late = "the check of the program on disk did not end within 10 s";
    assert_eq!(
        story.at(10_006, Event::Tick),
        [KillCheck, NotRestarted(late.into())]
    );
    assert_eq!(story.at(10_007, Event::Checked(Err("killed".into()))), []);
    assert_eq!(story.at(10_008, Event::Restart), [Check]);
    let told = NotRestarted("it was told to stop".into());
    assert_eq!(
        story.at(10_009, Event::Stop),
        [KillCheck, told, Unlisten, drain(100)]
    );
    assert_eq!(story.at(10_010, Event::Checked(Ok(()))), []);
    assert_eq!(
        story.at(10_010, Event::Restart),
        [Refuse("it is stopping".into())]
    );
}

#[test]
fn an_exec_waits_until_all_else_is_done() {
    // A check ends at the moment at which a worker is found to hang: it would live for ever on the other side.
    let mut story = Story::serving(1);
    story.at(1, Event::Restart);
    let mut actions: VecDeque<Action> = story.at(2, Event::Checked(Ok(()))).into();
    actions.extend(story.at(2, Event::Late(pid(100), "hangs".into())));
    let in_order: Vec<Action> = std::iter::from_fn(|| Action::next(&mut actions)).collect();
    assert_eq!(in_order.len(), 5);
    assert_eq!(in_order[0], Kill(pid(100)));
    assert_eq!(in_order[3..], [Spawn, Execute]);
    let mut actions = VecDeque::from([back("no"), Kill(pid(1)), drain(2)]);
    let in_order: Vec<Action> = std::iter::from_fn(|| Action::next(&mut actions)).collect();
    assert_eq!(in_order, [Kill(pid(1)), drain(2), back("no")]);
}

#[test]
fn old_workers_drain_when_all_new_ones_serve() {
    let mut story = replacing(2);
    assert_eq!(story.at(1, Event::Ready(pid(60))), []);
    assert!(story.plan.is_old(pid(50)) && !story.plan.is_old(pid(60)));
    assert_eq!(
        story.at(2, Event::Ready(pid(61))),
        [replace(50, 60), replace(51, 61)]
    );
    assert_eq!(story.deadline(), Some(5_502));
    assert_eq!(story.died(3, 50), []);
    // A new one that dies meanwhile is replaced as ever.
    assert_eq!(
        story.died(4, 60).last(),
        Some(&Spawn),
        "it was not the heir"
    );
    let late = Say("worker 51 did not leave in time and was killed".into());
    assert_eq!(story.at(5_502, Event::Tick), [Kill(pid(51)), late]);
    assert_eq!(story.died(5_503, 51), [Restarted]);
}

#[test]
fn who_leaves_at_a_restart_passes_its_connections_on_to_one_that_serves_and_stays() {
    let mut story = replacing(2);
    story.at(1, Event::Ready(pid(60)));
    story.at(2, Event::Ready(pid(61)));
    // The heir of one of them dies: the other new one has room.
    let heard = story.died(3, 60);
    assert_eq!(heard[2..], [Spawn, inherit(50, 61)]);
    story.at(3, Event::Spawned(pid(62)));
    // The last one is told to leave by somebody: nobody is there for a moment.
    let heard = story.at(4, Event::Leaves(pid(61), CLOSE_WAIT));
    assert_eq!(heard[1..], [Spawn]);
    let both = [inherit(50, 62), inherit(51, 62)];
    assert_eq!(story.at(5, Event::Ready(pid(62))), both);
    assert_eq!(story.at(6, Event::Tick), [], "said once");
    // One that hangs is none; who is killed itself needs none.
    story.at(7, Event::Spawned(pid(63)));
    story.at(7, Event::Ready(pid(63)));
    assert_eq!(story.died(8, 51), []);
    let heard = story.at(8, Event::Late(pid(62), "hangs".into()));
    assert!(heard.ends_with(&[inherit(50, 63)]), "{heard:?}");
    story.at(5_502, Event::Tick);
    let heard = story.died(5_503, 63);
    assert!(!heard.contains(&inherit(50, 62)), "{heard:?}");
}

#[test]
fn who_has_no_way_to_its_heir_is_given_one_soon() {
    let mut story = replacing(2);
    story.at(1, Event::Ready(pid(60)));
    story.at(2, Event::Ready(pid(61)));
    assert_eq!(story.at(2, Event::NoWay(pid(50))), []);
    assert_eq!(story.deadline(), Some(102));
    assert_eq!(story.at(101, Event::Tick), []);
    assert_eq!(story.at(102, Event::Tick), [inherit(50, 60)]);
    assert_eq!(story.at(102, Event::NoWay(pid(50))), []);
    // Nobody is there to have its connections when it is due.
    story.at(150, Event::Leaves(pid(60), CLOSE_WAIT));
    story.at(150, Event::Leaves(pid(61), CLOSE_WAIT));
    story.at(202, Event::Tick);
    assert!(story.deadline() > Some(202));
    story.at(300, Event::Spawned(pid(62)));
    let both = [inherit(50, 62), inherit(51, 62)];
    assert_eq!(story.at(301, Event::Ready(pid(62))), both);
    // Who is killed needs none.
    story.at(302, Event::NoWay(pid(50)));
    story.at(5_502, Event::Tick);
    assert!(story.deadline() > Some(5_502));
}

#[test]
fn on_a_stop_nothing_is_passed_on() {
    let mut story = replacing(1);
    let heard = story.at(1, Event::Ready(pid(60)));
    assert_eq!(heard, [replace(50, 60), replace(51, 60)]);
    let heard = story.at(2, Event::Stop);
    assert!(heard.ends_with(&[Unlisten, drain(50), drain(51), drain(60)]));
    assert_eq!(story.died(3, 60), []);
}

#[test]
fn a_new_worker_that_fails_brings_the_old_program_back() {
    let mut story = replacing(2);
    assert_eq!(story.at(1, Event::Ready(pid(60))), []);
    story.at(2, Event::Failed(pid(61), "no room".into()));
    assert_eq!(
        story.died(3, 61),
        [replace(60, 50), back("worker 61: no room")]
    );
    let now = story.start + Duration::from_millis(3);
    let pass = |number| story.plan.pass(now, pid(number)).unwrap();
    assert_eq!(pass(50), passed(50, Stage::Serving));
    assert_eq!(
        pass(60),
        Passed {
            kill_in: Some(Duration::from_millis(5_500)),
            ..passed(60, Stage::Draining)
        }
    );
    // On the other side: the old ones are the ones again.
    let all = [pass(50), pass(51), pass(60)];
    story.plan = Plan::returned(2, CLOSE_WAIT, now, &all);
    assert_eq!(story.plan.begin(), []);
    assert_eq!(story.at(4, Event::Tick), [inherit(60, 50)], "told again");
    assert_eq!(story.died(4, 60), [], "it left as it was told");
    assert_eq!(story.died(5, 50).last(), Some(&Spawn));
    assert_eq!(story.at(6, Event::Restart), [Check]);

    // Who died meanwhile is missed at once.
    let story = Plan::returned(2, CLOSE_WAIT, now, &all[1..]);
    assert_eq!(story.begin(), [Spawn]);
}

#[test]
fn without_a_way_back_the_new_program_keeps_the_old_workers() {
    let mut story = replacing(2);
    let why = "worker 60: not ready after 10 s";
    assert_eq!(
        story.at(10_000, Event::Tick),
        [Kill(pid(60)), Kill(pid(61)), back(why)]
    );
    let said = story.at(10_001, Event::NotReturned("no".into()));
    let text = format!("{why}; the program of before cannot be executed again: no");
    assert_eq!(said, [NotRestarted(text)]);
    assert_eq!(story.died(10_001, 60), [], "nobody misses it");
    assert_eq!(story.died(10_002, 61), []);
    assert_eq!(story.at(10_003, Event::Tick), []);
    assert_eq!(story.died(10_004, 50).last(), Some(&Spawn));

    // The old ones died while the new ones were starting: somebody has to serve.
    let mut story = replacing(1);
    assert!(matches!(&story.died(1, 50)[..], [CountDeath, Say(_)]));
    assert!(matches!(&story.died(2, 51)[..], [CountDeath, Say(_)]));
    let why = "worker 60: exited, status 1 before it was ready";
    assert_eq!(story.died(3, 60), [back(why)]);
    story.at(3, Event::NotReturned("no".into()));
    assert_eq!(story.at(1_003, Event::Tick), [Spawn]);
}

#[test]
fn a_restart_whose_workers_come_and_go_is_given_up() {
    let mut story = replacing(2);
    story.at(1, Event::Ready(pid(60)));
    assert_eq!(story.died(2, 60).last(), Some(&Spawn), "it had been ready");
    story.at(2, Event::Spawned(pid(62)));
    story.at(9_000, Event::Ready(pid(61)));
    assert_eq!(story.died(9_001, 61).last(), Some(&Spawn));
    story.at(9_002, Event::Spawned(pid(63)));
    story.at(9_003, Event::Ready(pid(63)));
    assert_eq!(
        story.died(10_001, 62),
        [
            replace(63, 51),
            back("worker 62: exited, status 1 before it was ready")
        ]
    );
}

#[test]
fn an_exec_forgets_no_stage() {
    let start = Instant::now();
    let second = Some(Duration::from_secs(1));
    let old = [
        passed(50, Stage::Serving),
        Passed {
            kill_in: second,
            ..passed(51, Stage::Draining)
        },
        Passed {
            kill_in: second,
            ..passed(52, Stage::Booting)
        },
    ];
    let mut story = Story {
        plan: Plan::resume(1, CLOSE_WAIT, start, &old),
        start,
    };
    story.at(0, Event::Spawned(pid(60)));
    assert_eq!(story.died(1, 51), [], "it left as it was told");
    assert_eq!(
        story.at(1_000, Event::Tick),
        [Kill(pid(52))],
        "its time to start goes on"
    );
    story.died(1_001, 52);
    let why = "worker 60: not ready after 10 s";
    assert_eq!(story.at(10_000, Event::Tick), [Kill(pid(60)), back(why)]);
    assert_eq!(story.plan.stage(pid(50)), Some(Stage::Serving));
}

#[test]
fn a_worker_forked_while_leaving_leaves_too() {
    let mut story = Story::new(2);
    story.at(0, Event::Spawned(pid(2)));
    assert_eq!(
        story.at(1, Event::NotSpawned("no".into())),
        [Unlisten, Kill(pid(2))]
    );
    assert_eq!(story.at(2, Event::Spawned(pid(3))), [Kill(pid(3))]);
}

/// Two workers that serve, and a delay of 3 s.
fn delaying() -> Story {
    let mut story = Story::serving(2);
    story.plan = story.plan.delaying(Duration::from_secs(3));
    story
}

#[test]
fn a_stop_may_be_put_off_and_is_said_meanwhile() {
    let mut story = delaying();
    assert_eq!(
        story.at(0, Event::Stop),
        [Prepare(pid(100)), Prepare(pid(101))]
    );
    assert_eq!(story.deadline(), Some(3000));
    assert!(story.plan.is_stopping() && !story.plan.is_leaving());
    // It serves as before: who dies is replaced, and the next one learns of the stop.
    assert!(story.died(1000, 100).contains(&Spawn));
    story.at(1001, Event::Spawned(pid(102)));
    assert_eq!(story.at(1100, Event::Ready(pid(102))), [Prepare(pid(102))]);
    let refused = Refuse("it is stopping".into());
    assert_eq!(story.at(1200, Event::Restart), [refused]);
    assert_eq!(story.at(2999, Event::Tick), []);
    assert_eq!(
        story.at(3000, Event::Tick),
        [Unlisten, drain(101), drain(102)]
    );
    story.died(3100, 101);
    assert_eq!(story.died(3100, 102), [Leave(Outcome::Stopped)]);
}

#[test]
fn the_second_stop_ends_the_delay_and_the_third_leaves_at_once() {
    for second in [Event::Stop, Event::Interrupt] {
        let mut story = delaying();
        story.at(0, Event::Stop);
        assert_eq!(story.at(100, second), [Unlisten, drain(100), drain(101)]);
        let at_once = |number| Action::Drain {
            pid: pid(number),
            within: Duration::ZERO,
            why: Going::Stop,
        };
        assert_eq!(story.at(200, Event::Stop), [at_once(100), at_once(101)]);
    }
}

#[test]
fn who_is_at_the_terminal_or_starts_has_no_delay() {
    let mut story = delaying();
    let left = story.at(0, Event::Interrupt);
    assert_eq!(left, [Unlisten, drain(100), drain(101)]);
    let mut story = Story::new(1);
    story.plan = story.plan.delaying(Duration::from_secs(3));
    story.at(0, Event::Spawned(pid(1)));
    assert_eq!(story.at(1, Event::Stop), [Unlisten, Kill(pid(1))]);
}

#[test]
fn a_restart_is_given_up_when_the_delay_begins() {
    let mut story = delaying();
    assert_eq!(story.at(0, Event::Restart), [Check]);
    let why = NotRestarted("it was told to stop".into());
    assert_eq!(
        story.at(1, Event::Stop),
        [KillCheck, why, Prepare(pid(100)), Prepare(pid(101))]
    );
    assert_eq!(story.at(2, Event::Checked(Ok(()))), []);
    let begun = story.start;
    let mut plan = Plan::resume(
        1,
        CLOSE_WAIT,
        begun,
        &[Passed {
            pid: pid(7),
            stage: Stage::Serving,
            kill_in: None,
        }],
    )
    .delaying(Duration::from_secs(3));
    plan.step(begun, Event::Spawned(pid(8)));
    let why = NotRestarted("it was told to stop".into());
    assert_eq!(plan.step(begun, Event::Stop), [why, Prepare(pid(7))]);
    // The new one was on its way, and serves too.
    assert_eq!(plan.step(begun, Event::Ready(pid(8))), [Prepare(pid(8))]);
    let end = begun + Duration::from_secs(3);
    assert_eq!(plan.step(end, Event::Tick), [Unlisten, drain(7), drain(8)]);
}
