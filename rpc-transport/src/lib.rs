//! The tokio half of `rpc`: the driver, the handles of connections, sessions and calls, servers, and the backends.
//! Applications use it through the facade crate `rpc`.
//!
//! ```text
//! 5  server      connection → session → {calls, tower, channel} → call → {layered, local, handle}
//! 4  driver → {dispatch → handler, registry}      metrics → inspect → registry
//! 3  state
//! 2  backend → stream            clock           actor
//! 1  error → {tls → endpoint}    ending           budget, peers, report, tally
//! ```

mod actor;
mod backend;
mod budget;
mod call;
#[cfg(feature = "tower")]
mod calls;
mod channel;
mod chunks;
mod clock;
mod connection;
mod dispatch;
mod driver;
mod ending;
mod endpoint;
mod error;
mod handle;
mod handler;
pub mod inspect;
mod layered;
mod local;
#[cfg(feature = "metrics")]
pub mod metrics;
mod peers;
mod registry;
mod report;
mod server;
mod session;
mod state;
mod stream;
mod sync;
mod tally;
#[cfg(feature = "_tls")]
pub mod tls;
#[cfg(feature = "tower")]
pub mod tower;

pub use actor::Actor;
pub use backend::{Activated, activated, bind, dial};
pub use budget::{Budget, BudgetLevel, Share};
pub use call::Call;
pub use channel::{Backend, Channel, Client, describe};
pub use connection::{Connection, ConnectionBuilder, connect};
pub use ending::{Closed, Drained};
pub use endpoint::{Address, Endpoint, EndpointError, Options, ToEndpoint};
pub use error::{OpenError, ServeError};
pub use local::{Direct, IntoLocal, bounded, local};
#[doc(hidden)]
pub use server::{Server, ServerBuilder};
pub use session::{Session, SessionBuilder};
pub use stream::{BoxFuture, Connected, Incoming, Listener};
