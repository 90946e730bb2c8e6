//! What a client can be told. One value, passed down; nothing is read from the surroundings.

use std::time::Duration;
use thalweg_actor::network::Endpoint;

/// An event's content, in bytes, that is written like any other. A larger one is slower: it waits for all events
/// before it, and those behind it wait for it.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// An event's content, in bytes: larger ones are refused.
pub const LARGE_EVENT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// How a client behaves. Change the controllers; the rest fits nearly everybody.
#[derive(Clone, Debug)]
pub struct Config {
    /// Controllers that speak the native protocol, asked in turn. At least one.
    pub controllers: Vec<Endpoint>,
    /// Longest wait for a connection. Raise it for far-away servers.
    pub connect_timeout: Duration,
    /// Longest wait for an answer that is not held on purpose. Raise it for overloaded servers.
    pub request_timeout: Duration,
    /// First pause before something that failed is tried again; doubled each time.
    pub retry_delay_min: Duration,
    /// Longest pause before something that failed is tried again.
    pub retry_delay_max: Duration,
    /// How often one call to a controller is tried.
    pub controller_attempts: u32,
    /// Silence after which a connection that matters is asked whether it lives; twice that ends it.
    pub keep_alive: Duration,
    /// Unacknowledged events of one writer; beyond it `write` waits. Raise it for throughput, lower it for latency.
    pub window_events: u32,
    /// Unacknowledged bytes of one writer; beyond it `write` waits.
    pub window_bytes: u32,
    /// Most bytes of events that one append block gathers. A larger event travels alone.
    pub block_bytes_max: usize,
    /// Most bytes that one read asks for. The server answers at most 2 MiB.
    pub read_bytes: u32,
}

impl Config {
    /// What applications want.
    pub fn production(controllers: Vec<Endpoint>) -> Self {
        Self {
            controllers,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            retry_delay_min: Duration::from_millis(5),
            retry_delay_max: Duration::from_secs(1),
            controller_attempts: 10,
            keep_alive: Duration::from_secs(5),
            window_events: 100_000,
            window_bytes: 64 * 1024 * 1024,
            block_bytes_max: 1024 * 1024,
            read_bytes: 2 * 1024 * 1024,
        }
    }

    /// The pause before attempt number `attempt` (1 for the first repetition).
    pub(crate) fn retry_delay(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_delay_min.saturating_mul(factor).min(self.retry_delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let config = Config::production(vec!["c:1".into()]);
        let pauses: Vec<_> = (1..=10).map(|n| config.retry_delay(n).as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(config.retry_delay(u32::MAX).as_millis(), 1000);
    }
}
