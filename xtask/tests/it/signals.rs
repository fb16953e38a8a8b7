//! A signal reaches the launched program exactly once, and `xtask` waits for it to end in its own way.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use crate::{FakeCargo, XTASK};

/// Says its process id, then the name of each signal it gets; ends in its own way when told so by USR1. `wait` is the
/// one command of a shell that a trapped signal ends at once, without a gap where it could be missed.
const PROGRAM: &str = r"
trap 'echo TERM' TERM; trap 'echo INT' INT; trap 'echo HUP' HUP
sleep 60 >/dev/null &
trap 'kill $!; exit 42' USR1
echo $$
while kill -0 $!; do wait $!; done";

/// `xtask train` with `PROGRAM` launched and its handlers in place.
struct Running {
    xtask: Child,
    program: Pid,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut xtask = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(xtask.stdout.take().unwrap()).lines();
        let program = lines.next().unwrap().unwrap().parse().unwrap();
        Self { xtask, program: Pid::from_raw(program).unwrap(), lines }
    }

    /// In a process group of its own, which is not the foreground of any terminal.
    fn in_background() -> Self {
        let mut xtask = FakeCargo::new(PROGRAM).xtask();
        xtask.arg("train").process_group(0).stdin(Stdio::null()).current_dir("/");
        Self::start(xtask)
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.xtask), signal).unwrap();
    }

    fn line(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    /// Ends the program, which must have nothing left to say.
    fn finish(mut self) {
        kill_process(self.program, Signal::USR1).unwrap();
        assert_eq!(self.line(), None);
        assert_eq!(self.xtask.wait().unwrap().code(), Some(42));
    }
}

#[test]
fn a_signal_to_xtask_alone_is_passed_on() {
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP")] {
        let mut running = Running::in_background();
        for _ in 0..3 {
            running.send(signal);
            assert_eq!(running.line().unwrap(), name);
        }
        running.finish();
    }
}

#[test]
fn ctrl_c_in_a_terminal_arrives_once() {
    let mut terminal =
        File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap());
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();

    // The leader of a new session that opens a terminal has it as its own from then on.
    let mut session = FakeCargo::new(PROGRAM).command("setsid");
    session.args(["sh", "-c", r#"exec "$0" train <"$1""#, XTASK, &name]).current_dir("/");
    let mut running = Running::start(session);

    for _ in 0..20 {
        terminal.write_all(b"\x03").unwrap(); // Ctrl-C
        assert_eq!(running.line().unwrap(), "INT");
        // What no terminal sends is passed on there too; and had the one before come twice, it would show here.
        running.send(Signal::TERM);
        assert_eq!(running.line().unwrap(), "TERM");
    }
    running.finish();
}
