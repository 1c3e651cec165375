//! The service whose path is measured: a server in this process, unless another one is selected.

use std::path::Path;

use ringlift::server::{Server, ServerSettings};
use ringlift::{Credentials, Endpoint, PRODUCTION_URL, Secret, Settings, SigbusHandler};

use crate::cli::args::GlobalArgs;
use crate::cli::client;
use crate::cli::exit::CommandError;
use crate::cli::tune_args::TuneArgs;

/// The service, and the settings that reach it.
pub(super) struct TuneTarget {
    pub(super) settings: Settings,
    /// The server in this process. Dropping it stops it.
    server: Option<Server>,
}

impl TuneTarget {
    /// Returns the selected service, or starts a server that stores its data below `place`.
    pub(super) fn open(
        args: &TuneArgs,
        global: &GlobalArgs,
        place: &Path,
    ) -> Result<TuneTarget, CommandError> {
        check_selection(args, global)?;
        let target = if is_selected(args, global) {
            let mut settings = client::client_settings(global);
            settings.credentials = Credentials::ApiKey(client::required_key(global)?);
            TuneTarget { settings, server: None }
        } else {
            let server = Server::start(ServerSettings::new(place.join("server")))?;
            let mut settings = Settings::default();
            settings.endpoint_url = server.url().to_owned();
            settings.credentials = Credentials::ApiKey(Secret::new(server.api_key()));
            settings.sigbus = SigbusHandler::Install;
            settings.redactor = global.redactor.clone();
            TuneTarget { settings, server: Some(server) }
        };
        if let Some(timetable) = &args.bwlimit {
            // Once: a limit that changes during the measurement would look like a property of the path.
            timetable.apply(&target.settings.bandwidth);
        }
        Ok(target)
    }

    pub(super) fn is_local(&self) -> bool {
        self.server.is_some()
    }

    pub(super) fn is_tls(&self) -> bool {
        Endpoint::parse(&self.settings.endpoint_url).is_ok_and(|endpoint| endpoint.is_tls())
    }
}

fn is_selected(args: &TuneArgs, global: &GlobalArgs) -> bool {
    args.production || global.service.sandbox || global.service.endpoint_url.is_some()
}

/// Returns `true` if the URL leads to the production service. Its account has one budget, by any scheme and port.
fn is_production(url: &str) -> bool {
    // A name with a final dot is the same name (RFC 1034, section 3.1).
    let host =
        |url| Endpoint::parse(url).map(|endpoint| endpoint.host().trim_end_matches('.').to_lowercase());
    host(url).is_ok_and(|named| host(PRODUCTION_URL).is_ok_and(|production| named == production))
}

/// Refuses the production service unless it was asked for by name: a measurement uses a part of the account's budget.
fn check_selection(args: &TuneArgs, global: &GlobalArgs) -> Result<(), CommandError> {
    let service = &global.service;
    let url = service.endpoint_url.as_deref();
    if args.production && (service.sandbox || url.is_some_and(|url| !is_production(url))) {
        return Err(CommandError::usage(
            "--production contradicts --sandbox and --endpoint-url, on the command line, in the environment or in the \
             config file: use one of them",
        ));
    }
    if let Some(url) = url.filter(|url| !args.production && is_production(url)) {
        return Err(CommandError::usage(format!(
            "{url} is the production service: use --production to measure the path to it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_is_recognised_by_its_host() {
        for url in
            ["https://ws.api.video", "http://WS.api.video:8080/", "https://ws.api.video.", PRODUCTION_URL]
        {
            assert!(is_production(url), "{url}");
        }
        for url in
            [ringlift::SANDBOX_URL, "https://ws.api.video.example", "http://127.0.0.1:80", "ws.api.video/"]
        {
            assert!(!is_production(url), "{url}");
        }
    }
}
