//! HTTP proxies: the setting, the tunnel by CONNECT, and requests in absolute form.
//!
//! hyper-util's matcher and tunnel are not used. The matcher connects directly if the URL of the proxy is invalid, and
//! its exemptions have no ports. The tunnel has no timeout, and drops the status and the words of a refusal.

mod connect;
mod gateway;
mod no_proxy;
pub(super) mod refusal;
mod setting;

pub(super) use gateway::{Gateway, Opening};
pub use no_proxy::NoProxy;
pub(crate) use refusal::{ProxyLogin, ProxyRefusal};
pub use setting::{Proxy, ProxyFlaw};
