//! What systemd is told of a service of `Type=notify`: that it has begun, that it lives, that it stops. Where nobody
//! asked, by `NOTIFY_SOCKET`, nobody is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that the worker has begun, and from now on, where a watchdog waits for it, that it lives. It has begun once
/// its settings and keys are good: a database that is away is waited for, and no reason to start it over.
pub fn ready() {
    tell(&[NotifyState::Ready]);
    let variable = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(every) = interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id()) {
        tokio::spawn(async move {
            loop {
                tell(&[NotifyState::Watchdog]);
                tokio::time::sleep(every).await;
            }
        });
    }
}

/// How often the watchdog wants to hear of process `me`: twice in its time, as sd_watchdog_enabled(3) has it. A
/// process that is named is the one that is meant, and not its children.
fn interval(micros: Option<u64>, pid: Option<u64>, me: u32) -> Option<Duration> {
    let micros = micros.filter(|micros| *micros > 0 && pid.is_none_or(|pid| pid == u64::from(me)))?;
    Some(Duration::from_micros((micros / 2).max(1000)))
}

/// Says that it stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_told_twice_in_its_time() {
        assert_eq!(interval(Some(30_000_000), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(interval(Some(30_000_000), Some(7), 7), Some(Duration::from_secs(15)));
        assert_eq!(interval(Some(30_000_000), Some(8), 7), None);
        assert_eq!((interval(None, None, 7), interval(Some(0), None, 7)), (None, None));
    }
}
