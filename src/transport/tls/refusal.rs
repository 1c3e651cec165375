//! The meaning of TLS errors: a final refusal, or a failure worth a retry.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::verify::is_ca_as_end_entity;
use crate::transport::error::{SentProgress, TransportError};
use crate::transport::history::History;

/// The stage of a connection at the time of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum TlsStage {
    Handshake,
    /// After the client's handshake. In TLS 1.3 a server refuses a client without a certificate only here.
    Connected,
}

/// Converts a TLS error to a final refusal, or to a failure that may be temporary.
pub(in crate::transport) fn refused(
    authority: &str,
    history: &History,
    error: &Error,
    stage: TlsStage,
    sent: SentProgress,
) -> TransportError {
    refusal(authority, history, error, stage).unwrap_or_else(|| TransportError::Tls {
        authority: authority.to_owned(),
        reason: error.to_string(),
        sent,
    })
}

/// Returns the refusal that a TLS error means; `None` if it may be temporary.
pub(in crate::transport) fn refusal(
    authority: &str,
    history: &History,
    error: &Error,
    stage: TlsStage,
) -> Option<TransportError> {
    let authority = authority.to_owned();
    if let Error::InvalidCertificate(reason) = error {
        let advice = advice(reason);
        return Some(TransportError::Untrusted { authority, reason: reason.to_string(), advice });
    }
    let (reason, advice) = refusal_reason(error, stage, history)?;
    Some(TransportError::TlsRefused { authority, reason, advice })
}

fn refusal_reason(error: &Error, stage: TlsStage, history: &History) -> Option<(String, &'static str)> {
    // A server in a rolling deployment may refuse for a moment. An endpoint that has never answered is
    // considered wrong.
    let is_unknown = !history.has_answered();
    let is_new = is_unknown && stage == TlsStage::Handshake;
    let refused = |reason: &str, advice| Some((reason.to_owned(), advice));
    match error {
        Error::FailedToGetCurrentTime => refused("the clock of this machine stands before 1970", SET_CLOCK),
        Error::AlertReceived(alert) if wants_certificate(*alert, history) => refused(
            "the server requires a client certificate, which ringlift cannot send",
            NO_CLIENT_CERTIFICATE,
        ),
        Error::AlertReceived(alert) if is_unknown && !may_pass(*alert) => {
            Some((alert_reason(*alert), CHECK_SERVER))
        }
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) if is_new => refused("what answers there does not speak TLS", CHECK_PORT),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::NoCertificatesPresented
        | Error::NoApplicationProtocol
            if is_new =>
        {
            Some((error.to_string(), CHECK_SERVER))
        }
        _ => None,
    }
}

/// Returns `true` if the server closes the connection for lack of a client certificate.
///
/// TLS 1.2 has no alert of its own for this: OpenSSL sends `handshake_failure`, Go `bad_certificate`.
fn wants_certificate(alert: AlertDescription, history: &History) -> bool {
    use AlertDescription::*;
    let may_mean_it = matches!(
        alert,
        HandshakeFailure | NoCertificate | BadCertificate | AccessDenied | CertificateUnknown
    );
    alert == CertificateRequired || may_mean_it && history.wants_certificate()
}

/// Returns `true` if an alert concerns this connection or moment, not the parameters that the two sides
/// support (RFC 8446, section 6.2).
fn may_pass(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(alert, BadRecordMac | InternalError | UserCanceled | CloseNotify)
}

fn alert_reason(alert: AlertDescription) -> String {
    let refusal_reason = match alert {
        AlertDescription::ProtocolVersion => "the server speaks neither TLS 1.2 nor TLS 1.3",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "the server has no cipher suite and key exchange in common with ringlift"
        }
        AlertDescription::UnrecognisedName => "the server does not know this host name",
        AlertDescription::NoApplicationProtocol => "the server does not offer HTTP/1.1",
        _ => return format!("the server refused the handshake with the alert {alert:?}"),
    };
    refusal_reason.to_owned()
}

fn advice(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => {
            "; for a private authority, add its certificate to the trusted ones"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "; it has expired, or the clock of this machine is wrong"
        }
        other if is_ca_as_end_entity(other) => {
            "; it is an authority's certificate: add this very certificate to the trusted ones, or make one \
             with -addext basicConstraints=critical,CA:FALSE"
        }
        _ => "",
    }
}

const NO_CLIENT_CERTIFICATE: &str = "use an address of the service that requires no client certificate";
const CHECK_SERVER: &str =
    "check the endpoint's host and port; the server must offer TLS 1.2 or 1.3 and HTTP/1.1";
const CHECK_PORT: &str =
    "check the endpoint's port, or write http:// if the service is meant to be reached without TLS";
const SET_CLOCK: &str = "set the clock: certificates are valid for a period";

#[cfg(test)]
mod tests {
    use rustls::PeerIncompatible;

    use super::*;

    fn is_final(error: &Error, stage: TlsStage, history: &History) -> bool {
        refusal("h", history, error, stage).is_some()
    }

    #[test]
    fn alerts_are_final_until_the_endpoint_has_answered() {
        let history = History::default();
        let refused = Error::AlertReceived(AlertDescription::HandshakeFailure);
        for stage in [TlsStage::Handshake, TlsStage::Connected] {
            assert!(is_final(&refused, stage, &history));
        }
        assert!(is_final(
            &Error::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon),
            TlsStage::Handshake,
            &history
        ));
        assert!(is_final(
            &Error::InvalidMessage(InvalidMessage::InvalidContentType),
            TlsStage::Handshake,
            &history
        ));
        history.note_answer(7);
        assert!(!is_final(&refused, TlsStage::Handshake, &history));
        let required = Error::AlertReceived(AlertDescription::CertificateRequired);
        assert!(is_final(&required, TlsStage::Connected, &history));
        assert!(is_final(
            &Error::InvalidCertificate(CertificateError::Revoked),
            TlsStage::Handshake,
            &history
        ));
    }

    #[test]
    fn temporary_tls_failures_are_not_final() {
        let history = History::default();
        for alert in [AlertDescription::InternalError, AlertDescription::BadRecordMac] {
            assert!(!is_final(&Error::AlertReceived(alert), TlsStage::Handshake, &history), "{alert:?}");
        }
        assert!(!is_final(&Error::DecryptError, TlsStage::Handshake, &history));
        let garbled = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(!is_final(&garbled, TlsStage::Connected, &history));
    }
}
