//! A connection that many share and whoever needs it first makes.
//!
//! Invariant: nobody waits for another caller. Callers may be futures that are not polled for a long time (the read
//! ahead of a reader whose application does something else): what they wait for is made by a task, and no lock is held
//! across a wait.

use crate::config::Config;
use crate::link::{Link, Protocol};
use std::sync::{Arc, Mutex, PoisonError};
use thalweg_actor::env::Env;
use thalweg_actor::network::Endpoint;
use tokio::sync::watch;

/// What came of connecting; `None` while that goes on.
type Dialed<P> = Option<Result<Link<P>, Arc<str>>>;

/// One connection, made anew when it has ended.
pub(crate) struct Dialer<P: Protocol> {
    last: Mutex<Option<watch::Receiver<Dialed<P>>>>,
}

impl<P: Protocol> Default for Dialer<P> {
    fn default() -> Self {
        Self { last: Mutex::new(None) }
    }
}

impl<P: Protocol> Dialer<P> {
    /// The connection; one to `endpoint()` if there is none. The error says why not.
    pub(crate) async fn link(
        &self,
        env: &Env,
        config: &Config,
        endpoint: impl FnOnce() -> Endpoint,
    ) -> Result<Link<P>, Arc<str>> {
        let mut dialed = {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let found = last.as_ref().map(|dialed| dialed.borrow().clone());
            match (found, last.as_ref()) {
                (Some(Some(Ok(link))), _) if !link.is_ended() => return Ok(link),
                (Some(None), Some(under_way)) if under_way.has_changed().is_ok() => {
                    under_way.clone()
                }
                _ => last.insert(dial(env, config, endpoint())).clone(),
            }
        };
        match dialed.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| Err("nothing came of it".into())),
            Err(_) => Err("the task that connects has ended".into()),
        }
    }
}

fn dial<P: Protocol>(env: &Env, config: &Config, endpoint: Endpoint) -> watch::Receiver<Dialed<P>> {
    let (outcome, dialed) = watch::channel(None);
    let (own, config) = (env.clone(), config.clone());
    let connecting = async move {
        let link = Link::connect(&own, &config, &endpoint).await;
        outcome.send_replace(Some(link.map_err(|error| error.to_string().into())));
    };
    env.spawn.spawn("client link dialer", Box::pin(connecting));
    dialed
}

#[cfg(test)]
mod tests;
