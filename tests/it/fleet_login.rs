//! The certificates and the logins of a queue, right and wrong, and the servers that cannot serve.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair as NatsKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleet_hosts::{FleetHost, JETSTREAM, NatsServer, POOL};
use crate::support::command::{CommandOutput, run};
use crate::support::queue::folder;
use crate::support::{Scheme, TestServer};

/// Writes an authority and the certificate of a server at 127.0.0.1 into a folder.
fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let mut server = CertificateParams::new(Vec::new()).unwrap();
    server.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let key = KeyPair::generate().unwrap();
    let pem = server.signed_by(&key, &issuer).unwrap().pem();
    for (name, text) in [("ca.pem", authority_pem), ("server.pem", pem), ("key.pem", key.serialize_pem())] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn path(folder: &TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

/// Lists the jobs of the queue with further flags.
fn list(host: &FleetHost<'_>, flags: &[&str]) -> CommandOutput {
    run(host.command(["jobs", "list"]).args(flags))
}

#[test]
fn a_queue_with_tls_is_trusted_by_the_authority_that_the_flag_names_and_no_other() {
    let (right, wrong) = (certificates(), certificates());
    let tls = format!(
        "{JETSTREAM}\ntls {{ cert_file: {:?}, key_file: {:?} }}",
        path(&right, "server.pem"),
        path(&right, "key.pem"),
    );
    let Some(nats) = NatsServer::start_with(&tls, "") else { return };
    // The service has a certificate of another authority: both are trusted.
    let (server, films) = (TestServer::new(Scheme::Https), folder(2));
    let host = FleetHost::new(&server, nats.url().replace("nats://", "tls://"));
    let ca = |folder: &TempDir| path(folder, "ca.pem").to_str().unwrap().to_owned();
    let service = server.ca().unwrap().to_str().unwrap().to_owned();
    let films_path = films.path().to_str().unwrap();
    let both = ["--ca-cert", &service, "--ca-cert", &ca(&right)];
    run(host.command(["submit", films_path, "--pool", POOL]).args(both)).done();
    run(host.command(["work", "--drain", "--pool", POOL]).args(both)).done();
    server.assert_created(2);
    list(&host, &["--ca-cert", &ca(&wrong)]).failed(7, &["tls://127.0.0.1:", "certificate"]);
    list(&host, &[]).failed(7, &["tls://127.0.0.1:", "certificate"]);
    list(&host, &["--ca-cert", "/no/such/ca.pem"]).failed(4, &["/no/such/ca.pem"]);
    let no_pem = path(&right, "no.pem");
    fs::write(&no_pem, "not a certificate").unwrap();
    list(&host, &["--ca-cert", no_pem.to_str().unwrap()]).failed(1, &["no.pem", "CA certificates"]);
}

#[test]
fn a_password_or_a_token_opens_a_queue_and_a_wrong_one_is_refused_without_being_shown() {
    for (users, right, wrong) in [
        ("user: kim, password: \"right-pa55\"", "kim:right-pa55@", "kim:wrong-pa55@"),
        ("token: \"right-t0ken\"", "right-t0ken@", "wrong-t0ken@"),
    ] {
        let extra = format!("{JETSTREAM}\nauthorization {{ {users} }}");
        let Some(nats) = NatsServer::start_with(&extra, right) else { return };
        let server = TestServer::new(Scheme::Http);
        let output = list(&FleetHost::new(&server, nats.url()), &[]).done();
        let refused = list(&FleetHost::new(&server, nats.url().replace(right, wrong)), &[]);
        for output in [&output, &refused] {
            for secret in ["right-pa55", "wrong-pa55", "right-t0ken", "wrong-t0ken"] {
                assert!(!format!("{}{}", output.stdout, output.stderr).contains(secret), "{output:?}");
            }
        }
        refused.failed(7, &["refused the user", "nats://127.0.0.1:"]);
        let anonymous = list(&FleetHost::new(&server, nats.url().replace(right, "")), &[]);
        anonymous.failed(7, &["refused the user"]);
    }
}

#[test]
fn a_queue_that_becomes_full_names_the_limit_and_the_jobs_that_it_has_taken() {
    let limited = JETSTREAM.replace(" }", ", max_file_store: 60K }");
    let Some(nats) = NatsServer::start_with(&limited, "") else { return };
    let (server, films) = (TestServer::new(Scheme::Http), folder(150));
    let host = FleetHost::new(&server, nats.url());
    let output = host.submit(films.path()).failed(1, &["JetStream", "max_file_store"]);
    assert!(!output.stderr.contains("file system"), "{output:?}");
    let jobs = |output: &CommandOutput| -> Vec<Value> {
        let of_job = |event: Value| (event["event"] == "job").then(|| event["id"].clone());
        output.events().into_iter().filter_map(of_job).collect()
    };
    let (mut submitted, mut queued) = (jobs(&output), jobs(&list(&host, &["--json"]).done()));
    submitted.sort_by_key(Value::to_string);
    queued.sort_by_key(Value::to_string);
    assert!(!queued.is_empty() && queued.len() < 150, "{}", queued.len());
    assert_eq!(submitted, queued);
    let count = format!("submitted: {} files", queued.len());
    assert!(output.stderr.contains(&count), "{}", output.stderr);
}

/// An account with a user, as `nsc` would make them.
struct NatsUser {
    account: String,
    account_jwt: String,
    credentials: String,
    seed: String,
}

impl NatsUser {
    /// `storage` is the limit of JetStream in bytes, -1 for none and 0 without JetStream.
    fn new(operator: &NatsKey, storage: i64) -> NatsUser {
        let (account, user) = (NatsKey::new_account(), NatsKey::new_user());
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
            "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
        });
        let claims = json!({ "type": "account", "version": 2, "limits": unlimited });
        let account_jwt = jwt(operator, &account.public_key(), claims);
        let claims = json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        let user_jwt = jwt(&account, &user.public_key(), claims);
        let seed = user.seed().unwrap();
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        NatsUser { account: account.public_key(), account_jwt, credentials, seed }
    }

    fn write(&self, folder: &Path, name: &str) -> String {
        let path = folder.join(name);
        fs::write(&path, &self.credentials).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Returns the claims about `subject`, signed by `issuer`.
fn jwt(issuer: &NatsKey, subject: &str, claims: Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let body = json!({
        "jti": "TEST", "iat": now, "iss": issuer.public_key(), "name": "test", "sub": subject, "nats": claims,
    });
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&body));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_credentials_file_of_a_known_account_opens_a_queue_and_each_other_file_is_named() {
    let (operator, folder) = (NatsKey::new_operator(), tempfile::tempdir().unwrap());
    // The system account must not have JetStream.
    let system = NatsUser::new(&operator, 0);
    let (user, stranger) = (NatsUser::new(&operator, -1), NatsUser::new(&NatsKey::new_operator(), -1));
    let operator_claims = json!({ "type": "operator", "version": 2, "system_account": system.account });
    let operator_jwt = jwt(&operator, &operator.public_key(), operator_claims);
    let operator_path = folder.path().join("operator.jwt");
    fs::write(&operator_path, operator_jwt).unwrap();
    let extra = format!(
        "{JETSTREAM}\noperator: {operator_path:?}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload: {{ {}: {:?}, {}: {:?} }}",
        system.account, system.account, system.account_jwt, user.account, user.account_jwt,
    );
    let Some(mut nats) = NatsServer::start_with(&extra, "") else { return };
    let (server, films) = (TestServer::new(Scheme::Http), crate::support::queue::folder(2));
    let host = FleetHost::new(&server, nats.url());
    let right = user.write(folder.path(), "right.creds");
    let films = films.path().to_str().unwrap();
    run(&mut host.command(["submit", films, "--pool", POOL, "--nats-creds", &right])).done();
    run(&mut host.command(["work", "--drain", "--pool", POOL, "--nats-creds", &right])).done();
    server.assert_created(2);
    let wrong = stranger.write(folder.path(), "wrong.creds");
    let refused = list(&host, &["--nats-creds", &wrong]);
    assert!(!refused.stderr.contains(&stranger.seed), "{refused:?}");
    refused.failed(7, &["refused the user"]);
    list(&host, &[]).failed(7, &["refused the user"]);
    list(&host, &["--nats-creds", "/no/such.creds"]).failed(4, &["/no/such.creds", "credentials"]);
    let broken = folder.path().join("broken.creds");
    fs::write(&broken, &user.seed).unwrap();
    let output = list(&host, &["--nats-creds", broken.to_str().unwrap()]);
    assert!(!output.stderr.contains(&user.seed), "{output:?}");
    output.failed(1, &["broken.creds", "credentials"]);
    // Nothing that the server keeps has the secret of the user.
    nats.kill();
    let seed = user.seed.as_bytes();
    for entry in walkdir::WalkDir::new(nats.store()).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(seed.len()).any(|window| window == seed), "{}", entry.path().display());
        }
    }
}

#[test]
fn servers_that_cannot_keep_the_queue_are_named_with_the_way_out() {
    let Some(plain) = NatsServer::start_with("", "") else { return };
    let server = TestServer::new(Scheme::Http);
    list(&FleetHost::new(&server, plain.url()), &[]).failed(1, &["without JetStream", "jetstream {}"]);
    let single = NatsServer::start().unwrap();
    let host = FleetHost::new(&server, single.url());
    list(&host, &["--replicas", "3"]).failed(1, &["fewer NATS servers than the 3 copies"]);
    list(&host, &["--replicas", "1"]).done();
}

/// Starts a server that greets as a NATS server of this version, and that accepts each login. Returns its URL.
fn server_of_version(version: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let info = json!({
        "server_id": "OLD", "server_name": "old", "version": version, "go": "go1.19", "host": "127.0.0.1",
        "port": 4222, "headers": true, "max_payload": 8 << 20, "proto": 1, "jetstream": true,
    });
    thread::spawn(move || {
        for client in listener.incoming() {
            // A client that is content with the greeting ends the connection.
            let _ = greet(client.unwrap(), &info);
        }
    });
    url
}

fn greet(mut client: TcpStream, info: &Value) -> std::io::Result<()> {
    write!(client, "INFO {info}\r\n")?;
    for line in BufReader::new(client.try_clone()?).lines() {
        if line?.starts_with("PING") {
            client.write_all(b"PONG\r\n")?;
        }
    }
    Ok(())
}

#[test]
fn a_server_before_2_11_is_refused_with_the_version_that_is_needed() {
    let server = TestServer::new(Scheme::Http);
    for version in ["2.10.29", "2.9.10"] {
        let host = FleetHost::new(&server, server_of_version(version));
        list(&host, &[]).failed(1, &["older NATS server than 2.11", "update the server"]);
    }
}
