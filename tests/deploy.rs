//! The files under `deploy/`: configurations that `gatepost check` accepts, and manifests that mount what
//! these name.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn text(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap()
}

fn gatepost(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(arguments).current_dir(folder).output().unwrap()
}

/// Checks a configuration as it would be found on its machine: `files` name where each made file goes.
fn check(config: &str, policy: &str, files: &[(&str, &str)]) {
    let machine = tempfile::tempdir().unwrap();
    let root = machine.path();
    let made = gatepost(&["certs", "--directory", "made"], root);
    assert!(made.status.success());
    fs::write(root.join("made/broker"), "secret\n").unwrap();
    for (from, to) in files {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root.join("made").join(from), to).unwrap();
    }
    let policies = root.join("etc/gatepost/policies");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("orders.yaml"), text(policy)).unwrap();
    let here = |text: String, place: &str| text.replace(place, &format!("{}{place}", root.display()));
    let text = ["/etc/gatepost/", "/var/lib/gatepost/", "/run/"]
        .into_iter()
        .fold(text(config), here);
    fs::write(root.join("gatepost.yaml"), text).unwrap();
    let checked = gatepost(&["check", "--config", "gatepost.yaml"], root);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{config}: {told}");
}

#[test]
fn the_configuration_of_the_systemd_unit_is_good() {
    check(
        "systemd/gatepost.yaml",
        "systemd/policies/orders.yaml",
        &[
            ("server.crt", "/etc/gatepost/tls/server.crt"),
            ("server.key", "/etc/gatepost/secrets/server.key"),
            ("ca.crt", "/etc/gatepost/tls/db-ca.crt"),
            ("client.crt", "/etc/gatepost/tls/client.crt"),
            ("client.key", "/etc/gatepost/secrets/client.key"),
            ("broker", "/etc/gatepost/secrets/orders-broker"),
            ("signing.key", "/run/credentials/gatepost.service/signing.key"),
        ],
    );
}

#[test]
fn the_configuration_of_the_stateful_set_is_good() {
    check(
        "kubernetes/config.yaml",
        "kubernetes/policies/orders.yaml",
        &[
            ("server.crt", "/etc/gatepost/tls/tls.crt"),
            ("server.key", "/etc/gatepost/tls/tls.key"),
            ("ca.crt", "/etc/gatepost/database/ca.crt"),
            ("client.crt", "/etc/gatepost/database/tls.crt"),
            ("client.key", "/etc/gatepost/database/tls.key"),
            ("broker", "/etc/gatepost/broker/orders"),
            ("signing.key", "/etc/gatepost/signing/signing.key"),
        ],
    );
}

#[test]
fn everything_that_the_configuration_names_is_mounted() {
    let (config, manifest) = (text("kubernetes/config.yaml"), text("kubernetes/gatepost.yaml"));
    let lines = config.lines().filter(|line| !line.starts_with('#'));
    let paths = lines.flat_map(|line| line.split(['"', ' ', '}', ']', '[', ',']));
    let mut folders: Vec<_> = paths.filter(|word| word.starts_with('/')).map(parent).collect();
    folders.sort();
    folders.dedup();
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        let mount = format!("mountPath: {folder},");
        let mount_of_all = format!("mountPath: {folder}}}");
        assert!(
            manifest.contains(&mount) || manifest.contains(&mount_of_all),
            "{folder}"
        );
    }
}

/// The folder that would be mounted; policies and the like are folders themselves.
fn parent(path: &str) -> &str {
    match path {
        "/etc/gatepost/policies" => path,
        file => file.rsplit_once('/').unwrap().0,
    }
}
