//! The credentials of a client.

use super::secret::Secret;

/// The credentials that authorize a client's requests.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials. This is enough for delegated uploads, which an upload token authorizes.
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
    /// An access token that another program obtained.
    AccessToken {
        /// The access token.
        token: Secret,
        /// The refresh token that was granted with the access token. Without one, the access token is used until the
        /// service refuses it.
        refresh_token: Option<Secret>,
    },
}
