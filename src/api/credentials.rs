//! The credentials of a client.

use super::secret::Secret;

/// What proves that a caller may call.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// Nothing: enough for delegated uploads, which an upload token authorizes.
    #[default]
    None,
    /// An API key, sent with every request (HTTP Basic).
    ///
    /// <https://docs.api.video/reference/basic-authentication>
    ApiKey(Secret),
    /// An API key, sent once an hour in exchange for an access token (Bearer).
    ///
    /// <https://docs.api.video/reference/disposable-bearer-token-authentication>
    ExchangedApiKey(Secret),
    /// An access token that somebody else obtained.
    AccessToken {
        /// The access token.
        token: Secret,
        /// The refresh token that came with it; without it, the access token is used until it is refused.
        refresh_token: Option<Secret>,
    },
}
