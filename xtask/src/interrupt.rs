//! Ctrl-C and SIGTERM end what runs in the right order instead of ending us at once.

use std::sync::{
    Once,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on a signal only sets a flag. Calling it again changes nothing.
pub fn catch() -> Result<()> {
    static CAUGHT: Once = Once::new();
    let mut result = Ok(());
    CAUGHT.call_once(|| {
        result = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
    });
    Ok(result?)
}

pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once interrupted; guards tidy up on the way out.
pub fn check() -> Result<()> {
    if is_interrupted() {
        bail!("interrupted; everything it had started is gone");
    }
    Ok(())
}
