//! `gatepost certs`: certificates and a signing key for trying things out.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519,
};

use crate::app::clock::SystemClock;
use crate::cli::{Answer, Failure, say};
use crate::domain::Clock;

/// Make a development certificate authority, a server and a client certificate, and a signing key.
///
/// Never overwrites a file. Not for production: the authority's key lies beside what it signed.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  gatepost certs --directory certs/dev --host localhost --host 127.0.0.1")]
pub(super) struct Arguments {
    /// Where to write.
    #[arg(long, value_name = "FOLDER", default_value = "certs/dev")]
    directory: PathBuf,
    /// Names and addresses under which clients reach gatepost.
    #[arg(long, value_name = "NAME", default_values = ["localhost", "127.0.0.1", "::1"])]
    host: Vec<String>,
    /// The name in the certificate that gatepost shows to databases.
    #[arg(long, value_name = "NAME", default_value = "gatepost")]
    client_name: String,
}

/// Development certificates end by themselves; a year and a month, as browsers allow.
const LIFE: Duration = Duration::from_secs(397 * 24 * 60 * 60);
/// Machines whose clocks are a little behind still accept a fresh certificate.
const CLOCK_SLACK: Duration = Duration::from_secs(60 * 60);

/// A file, what goes into it, and whether others may read it.
struct Output {
    name: &'static str,
    text: String,
    secret: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Answer, Failure> {
    for path in write(arguments, SystemClock.now())? {
        say(&path.display())?;
    }
    Ok(Answer::Good)
}

impl Arguments {
    /// What the defaults of the command line are, in another folder.
    pub(super) fn loopback(directory: PathBuf) -> Self {
        Self {
            directory,
            host: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into(),
            client_name: "gatepost".to_owned(),
        }
    }
}

/// Makes and writes everything; the paths in the order of writing.
pub(super) fn write(arguments: &Arguments, now: SystemTime) -> Result<Vec<PathBuf>, Failure> {
    let outputs = make(arguments, now)?;
    let taken = outputs.iter().map(|output| arguments.directory.join(output.name));
    if let Some(taken) = taken.into_iter().find(|path| path.exists()) {
        return Err(format!("{} exists already; nothing was written", taken.display()).into());
    }
    fs::create_dir_all(&arguments.directory)?;
    let mut written = Vec::new();
    for output in outputs {
        let path = arguments.directory.join(output.name);
        write_new(&path, &output)?;
        written.push(path);
    }
    Ok(written)
}

fn make(arguments: &Arguments, now: SystemTime) -> Result<Vec<Output>, rcgen::Error> {
    let mut ca = params("gatepost development authority", vec![], now)?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut server = params("gatepost", arguments.host.clone(), now)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let server = server.signed_by(&server_key, &ca)?;

    let mut client = params(&arguments.client_name, vec![], now)?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client = client.signed_by(&client_key, &ca)?;

    let signing_key = KeyPair::generate_for(&PKCS_ED25519)?;
    let public = |name, text| Output {
        name,
        text,
        secret: false,
    };
    let secret = |name, key: &KeyPair| Output {
        name,
        text: key.serialize_pem(),
        secret: true,
    };
    Ok(vec![
        public("ca.crt", ca.pem()),
        secret("ca.key", ca.key()),
        public("server.crt", server.pem()),
        secret("server.key", &server_key),
        public("client.crt", client.pem()),
        secret("client.key", &client_key),
        secret("signing.key", &signing_key),
        public("signing.pub", signing_key.public_key_pem()),
    ])
}

fn params(name: &str, hosts: Vec<String>, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SLACK);
    params.not_after = epoch + since_epoch + LIFE;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Fails when the file exists, also when it appeared just now.
fn write_new(path: &Path, output: &Output) -> std::io::Result<()> {
    let mode = if output.secret { 0o600 } else { 0o644 };
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(output.text.as_bytes())
}
