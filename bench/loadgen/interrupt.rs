//! SIGINT and SIGTERM: every wait of the parent process ends with an error, so that whatever was started is
//! dropped in order, and with that ended.

use std::sync::OnceLock;
use std::time::Duration;

use mas::runner::StopSignal;

use crate::AnyError;

static STOP: OnceLock<StopSignal> = OnceLock::new();

/// Listens from now on.
pub(crate) fn listen() -> Result<(), AnyError> {
    let stop = StopSignal::new();
    stop.listen_to_signals()?;
    // A second call would find the first one's signal, which does as well.
    let _ = STOP.set(stop);
    Ok(())
}

/// Waits for `time`; an error when the user interrupts meanwhile.
pub(crate) fn pause(time: Duration) -> Result<(), AnyError> {
    match STOP.get() {
        Some(stop) if stop.wait(time) => Err("interrupted".into()),
        Some(_) => Ok(()),
        None => {
            std::thread::sleep(time);
            Ok(())
        }
    }
}
