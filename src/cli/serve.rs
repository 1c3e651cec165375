//! `ringlift serve`: runs the local api.video-compatible server until a signal ends it.

use std::fs;
use std::io;
use std::path::Path;

use ringlift::server::{FaultPlan, Limits, ServeError, Server, ServerSettings, TlsMode};

use super::args::{GlobalArgs, ServeArgs, ServeLimits};
use super::client;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, Summary};
use super::exit::{CommandError, Exit};
use super::signals::Interrupts;

pub(super) fn run(args: &ServeArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let key = client::key_of(args.api_key_file.as_deref(), global)?;
    let mut settings = ServerSettings::new(&args.data);
    settings.listen = args.listen;
    settings.api_key = key.as_ref().map(|key| key.reveal().to_owned());
    settings.tls = if args.tls { TlsMode::OwnAuthority } else { TlsMode::Off };
    settings.limits = limits(args.limits);
    settings.faults = args.faults.as_deref().map(faults).transpose()?.unwrap_or_default();
    // The number is unknown in some sandboxes. With two threads one slow request does not hold up all others.
    settings.threads = std::thread::available_parallelism().map_or(2, usize::from);
    // Before the start: a signal during it ends the process only after the server has stopped.
    let mut interrupts = Interrupts::new(console, None);
    let server = Server::start(settings)?;
    let made_key = key.is_none().then(|| server.api_key());
    announce(&server, made_key, console);
    let interrupt = client::block_on(async { Ok(interrupts.next().await) })?;
    console.note(format_args!("{}: stopping", interrupt.name()));
    server.stop();
    Ok(Some(Summary::from(Exit::Done)))
}

fn announce(server: &Server, made_key: Option<&str>, console: &Console) {
    if let Some(key) = made_key {
        console.note(format_args!("API key: {key}"));
    }
    if let Some(path) = server.ca_path() {
        console.note(format_args!("certificate: {}", path.display()));
    }
    console.emit(&CommandEvent::Ready { url: server.url(), api_key: made_key, ca_cert: server.ca_path() });
    console.result(format_args!("listening on {}", server.url()));
}

fn limits(whose: ServeLimits) -> Limits {
    match whose {
        ServeLimits::Sandbox => Limits::Sandbox,
        ServeLimits::Production => Limits::Production,
        ServeLimits::Off => Limits::Off,
    }
}

fn faults(path: &Path) -> Result<FaultPlan, CommandError> {
    let text = fs::read_to_string(path)
        .map_err(|error| CommandError::io(format!("read {}", path.display()), error))?;
    FaultPlan::parse(&text).map_err(|error| CommandError::usage(format!("{}: {error}", path.display())))
}

impl From<ServeError> for CommandError {
    fn from(error: ServeError) -> CommandError {
        let exit = match error {
            ServeError::KeyNeeded { .. } | ServeError::EmptyKey | ServeError::IntermediateStatus { .. } => {
                Exit::Usage
            }
            // A port below 1024 needs a privilege, which waiting does not grant.
            ServeError::Listen { ref source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Failed
            }
            ServeError::InUse { .. } | ServeError::Listen { .. } => Exit::Temporary,
            _ => Exit::Failed,
        };
        // The library names its settings.
        let text = match error {
            ServeError::KeyNeeded { addr } => format!(
                "{addr} is reachable from other machines, so the API key must be given (APIVIDEO_API_KEY or \
                 --api-key-file); or listen on 127.0.0.1"
            ),
            error => error.to_string(),
        };
        CommandError::Other(exit, format!("could not serve: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_is_asked_for_by_the_names_of_the_command() {
        let addr = ([0, 0, 0, 0], 8080).into();
        let text = CommandError::from(ServeError::KeyNeeded { addr }).to_string();
        assert!(text.contains("--api-key-file") && !text.contains("::"), "{text}");
    }

    #[test]
    fn privileged_port_fails_permanently_and_port_in_use_temporarily() {
        let addr = ([127, 0, 0, 1], 80).into();
        let exit =
            |kind: io::ErrorKind| CommandError::from(ServeError::Listen { addr, source: kind.into() }).exit();
        assert_eq!(exit(io::ErrorKind::PermissionDenied), Exit::Failed);
        assert_eq!(exit(io::ErrorKind::AddrInUse), Exit::Temporary);
    }
}
