//! Tokens of gatepost's own Azure identity, with which it logs in to database servers.
//!
//! One token is held and given to everybody until it is about to end. From half of its life on the next
//! one is asked for beside the work, so that an issuer may be away for the other half before anybody
//! notices. One request is under way at a time; after failures they keep a growing distance.

mod answer;
mod endpoint;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep, timeout};

use crate::domain::{AwaitedToken, Clock, NoToken, Secret, TokenSource};
use crate::identity::fetch::{self, PlainHttp};
use crate::identity::managed::answer::Issued;
use crate::tls::HttpsTrust;

pub use endpoint::{Endpoint, NotFound, Settings, Source};

/// One request. The instance metadata service answers in milliseconds from its cache and within seconds
/// without; whoever logs in waits for it.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// Logging in takes up to ten seconds, and a token that ends on the way is a refusal that nobody
/// understands.
const LAST_SECONDS: Duration = Duration::from_secs(15);
/// Failures in a row after which nobody is kept waiting any more.
const FAILURES_WAITED_FOR: u32 = 3;
/// Between attempts: Azure asks for at least a second and for growing distances; its metadata service can
/// be away for 70 seconds.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// After a refusal that will be the same next time, unless somebody changes something in Azure.
const RETRY_REFUSED: Duration = Duration::from_secs(10);
/// A token is renewed without waiting for a client, to this distance.
const TEND_EVERY: Duration = Duration::from_secs(5);
/// An answer is a token and a few words.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A cluster's tokens have one or two KiB.
const ASSERTION_BYTES_MAX: u64 = 32 * 1024;

/// gatepost's own identity towards one kind of database server.
pub struct ManagedIdentity(Arc<Inner>);

struct Inner {
    settings: Settings,
    https: Option<HttpsTrust>,
    clock: Arc<dyn Clock>,
    attempt_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failing: Option<Failing>,
    /// The request under way: whoever waits for it hears when it has ended.
    running: Option<watch::Receiver<()>>,
}

struct Held {
    token: Secret<String>,
    /// Ages of the process.
    stale: Duration,
    ends: Duration,
}

/// Since the last success.
struct Failing {
    count: u32,
    why: String,
    /// An age of the process.
    retry: Duration,
    /// It will be the same next time.
    refused: bool,
}

/// Why a request brought no token.
struct Failure {
    why: String,
    refused: bool,
    retry_after: Duration,
}

/// What somebody who wants a token does next.
enum Step {
    Take(Secret<String>),
    GiveUp(String),
    WaitForAnswer(watch::Receiver<()>),
    Wait(Duration),
}

impl ManagedIdentity {
    /// Asks nobody yet. `https` is needed where the endpoint is https.
    pub fn new(settings: Settings, https: Option<HttpsTrust>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            settings,
            https,
            clock,
            attempt_max: ATTEMPT_TIME_MAX,
            state: Mutex::default(),
        }))
    }

    /// Keeps a token at hand without being asked, while anybody has this.
    pub fn tend_from_now_on(&self, control: &Handle) {
        control.spawn(tend(Arc::downgrade(&self.0)));
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    async fn wait_for_token(&self) -> Result<Secret<String>, NoToken> {
        loop {
            match self.0.step() {
                Step::Take(token) => return Ok(token),
                Step::GiveUp(why) => return Err(NoToken { why }),
                // That the other end is gone is all there is to hear.
                Step::WaitForAnswer(mut ended) => while ended.changed().await.is_ok() {},
                Step::Wait(rest) => sleep(rest).await,
            }
        }
    }
}

impl TokenSource for ManagedIdentity {
    fn token(&self) -> AwaitedToken<'_> {
        Box::pin(self.wait_for_token())
    }
}

impl fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManagedIdentity").field(&self.0.settings).finish()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can leave the state half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(self: &Arc<Self>) -> Step {
        let now = self.clock.uptime();
        let state = self.state();
        let held = state.held.as_ref().filter(|held| now + LAST_SECONDS < held.ends);
        if let Some(held) = held {
            let (token, stale) = (held.token.clone(), now >= held.stale);
            drop(state);
            if stale {
                self.ask_if_due();
            }
            return Step::Take(token);
        }
        match &state.failing {
            Some(failing) if state.running.is_none() && now < failing.retry => {
                if failing.refused || failing.count >= FAILURES_WAITED_FOR {
                    Step::GiveUp(failing.why.clone())
                } else {
                    Step::Wait(failing.retry - now)
                }
            }
            Some(_) | None => Step::WaitForAnswer(self.ask(state)),
        }
    }

    /// One look at whether something is due.
    fn tend(self: &Arc<Self>) {
        let now = self.clock.uptime();
        let fresh = self.state().held.as_ref().is_some_and(|held| now < held.stale);
        if !fresh {
            self.ask_if_due();
        }
    }

    fn ask_if_due(self: &Arc<Self>) {
        let now = self.clock.uptime();
        let state = self.state();
        let failing = state.failing.as_ref();
        if failing.is_none_or(|failing| now >= failing.retry) {
            drop(self.ask(state));
        }
    }

    /// Joins the request under way, or makes one. It is a task of its own, so that somebody who gives up
    /// does not end it for the others.
    fn ask(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> watch::Receiver<()> {
        if let Some(running) = &state.running {
            return running.clone();
        }
        let (end, ended) = watch::channel(());
        state.running = Some(ended.clone());
        // Without a runtime the request is dropped at once, and that takes the lock again.
        drop(state);
        let asking = Asking {
            source: Arc::clone(self),
            began: self.clock.uptime(),
            outcome: None,
            _end: end,
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(asking.run());
        }
        ended
    }

    async fn fetch(&self) -> Result<Issued, Failure> {
        let settings = &self.settings;
        let url = settings.endpoint.url(&settings.resource);
        let (header, form, secret) = match &settings.endpoint {
            Endpoint::Imds { .. } => (Some(("Metadata", "true")), None, String::new()),
            Endpoint::AppService { header, .. } => {
                let secret = header.expose();
                (Some(("X-IDENTITY-HEADER", secret.as_str())), None, secret.clone())
            }
            Endpoint::Workload {
                client_id, assertion, ..
            } => {
                let assertion = read_assertion(assertion).await?;
                let form = endpoint::form(client_id, &settings.resource, &assertion);
                (None, Some(form), assertion)
            }
        };
        let request = fetch::Request {
            url: &url,
            header,
            form,
            plain_http: PlainHttp::ThisLink,
            https: self.https.as_ref(),
            body_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = fetch::ask(&request).await.map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            Failure::passing(source.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
        })?;
        if answer.status != hyper::StatusCode::OK.as_u16() {
            let words = answer::words(&answer.body, &secret);
            let words = words.map(|words| format!(" ({words})")).unwrap_or_default();
            return Err(Failure {
                why: format!("{url} answered {}{words}", answer.status),
                refused: is_refusal(answer.status),
                retry_after: answer.retry_after.unwrap_or_default().min(RETRY_MAX),
            });
        }
        answer::read(&answer.body, self.clock.now()).map_err(|why| Failure::passing(format!("{url}: {why}")))
    }
}

/// Azure's metadata service answers 404 and 410 while it is being updated, and 429 when it is asked too
/// often; other errors of the asker stay what they are.
const fn is_refusal(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 404 | 408 | 410 | 429)
}

/// Read anew each time: the cluster replaces it.
async fn read_assertion(path: &Path) -> Result<String, Failure> {
    let read = async {
        let file = tokio::fs::File::open(path).await?;
        let mut text = String::new();
        file.take(ASSERTION_BYTES_MAX).read_to_string(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read
        .await
        .map_err(|error| Failure::passing(format!("cannot read {}: {error}", path.display())))?;
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::passing(format!("{} holds no token", path.display())));
    }
    Ok(text.to_owned())
}

impl Failure {
    /// It may be otherwise next time.
    const fn passing(why: String) -> Self {
        Self {
            why,
            refused: false,
            retry_after: Duration::ZERO,
        }
    }
}

/// A request under way; however it ends, also by the runtime's end, the next one may start, and those
/// who wait hear of it.
struct Asking {
    source: Arc<Inner>,
    began: Duration,
    outcome: Option<Result<Issued, Failure>>,
    // Dropped last: whoever hears it finds the state as it is then.
    _end: watch::Sender<()>,
}

impl Asking {
    async fn run(mut self) {
        let fetched = timeout(self.source.attempt_max, self.source.fetch()).await;
        self.outcome = Some(fetched.unwrap_or_else(|_| {
            let url = self.source.settings.endpoint.url(&self.source.settings.resource);
            Err(Failure::passing(format!("{url} did not answer in time")))
        }));
    }

    fn keep(&self, state: &mut State, issued: Issued) {
        let life = issued.life;
        // One that is too short to log in with is none: its issuer is not asked again at once.
        if life <= LAST_SECONDS {
            let why = format!("the token was good for {} s only", life.as_secs());
            return self.fail(state, Failure::passing(why));
        }
        let recovered = state.failing.take().is_some();
        tracing::info!(
            resource = self.source.settings.resource,
            good_for = life.as_secs(),
            recovered,
            "a token of gatepost's own identity"
        );
        state.held = Some(Held {
            token: issued.token,
            stale: self.began + life / 2,
            ends: self.began + life,
        });
    }

    fn fail(&self, state: &mut State, failure: Failure) {
        let count = state.failing.as_ref().map_or(0, |failing| failing.count) + 1;
        let doubled = 1_u32.checked_shl(count - 1).unwrap_or(u32::MAX);
        let least = if failure.refused {
            RETRY_REFUSED
        } else {
            Duration::ZERO
        };
        let rest = RETRY_FIRST
            .saturating_mul(doubled)
            .min(RETRY_MAX)
            .max(failure.retry_after)
            .max(least);
        let why = &failure.why;
        tracing::warn!(
            resource = self.source.settings.resource,
            why,
            again_in = rest.as_secs(),
            "no token of gatepost's own identity"
        );
        state.failing = Some(Failing {
            count,
            why: failure.why,
            retry: self.source.clock.uptime() + rest,
            refused: failure.refused,
        });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let mut state = self.source.state();
        state.running = None;
        match outcome {
            Some(Ok(issued)) => self.keep(&mut state, issued),
            Some(Err(failure)) => self.fail(&mut state, failure),
            None => self.fail(&mut state, Failure::passing("the process is ending".to_owned())),
        }
    }
}

async fn tend(source: Weak<Inner>) {
    let mut ticks = tokio::time::interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(source) = source.upgrade() else {
            return;
        };
        source.tend();
    }
}
