//! Where audit records are sent on to, as meant.

use std::path::{Path, PathBuf};

use crate::app::config::file::{self, Named, SyslogForm, Written};
use crate::app::config::resolve::Resolver;
use crate::audit::export::Form;
use crate::sink::{OtlpAddress, OtlpSettings, Receiver, Settings, SyslogSettings};

impl Resolver<'_, '_, '_> {
    pub(super) fn sinks(
        &mut self,
        written: Option<&Written<Named<file::Sink>>>,
        journal: &Path,
    ) -> Option<Vec<Settings>> {
        let mut sinks = Vec::new();
        for (name, sink) in written.iter().flat_map(|written| &written.value.0) {
            sinks.push(Settings {
                name: name.value.clone(),
                directory: journal.to_owned(),
                receiver: self.receiver(name, sink)?,
            });
        }
        Some(sinks)
    }

    fn receiver(&mut self, name: &Written<String>, written: &file::Sink) -> Option<Receiver> {
        match (&written.syslog, &written.otlp) {
            (Some(syslog), None) => self.syslog(&syslog.get()?.value).map(Receiver::Syslog),
            (None, Some(otlp)) => self.otlp(&otlp.get()?.value).map(Receiver::Otlp),
            (Some(_), Some(_)) | (None, None) => {
                let message = "a sink is either syslog: {…} or otlp: {…}";
                self.reader.mistake(name.at, message);
                None
            }
        }
    }

    fn syslog(&mut self, written: &file::SyslogSink) -> Option<SyslogSettings> {
        let (host, port) = self.host_and_port(written.address.get()?)?;
        Some(SyslogSettings {
            host,
            port,
            plaintext: written.allow_plaintext.as_ref().is_some_and(|it| it.value),
            ca: self.authority(written.ca.as_ref())?,
            form: match written.form.as_ref().map(|form| form.value) {
                Some(SyslogForm::Cef) => Form::Cef,
                Some(SyslogForm::Ocsf) => Form::Ocsf,
                Some(SyslogForm::Rfc5424) | None => Form::Rfc5424,
            },
        })
    }

    fn otlp(&mut self, written: &file::OtlpSink) -> Option<OtlpSettings> {
        let url = written.url.get()?;
        let allowed = written.allow_plaintext.as_ref().is_some_and(|it| it.value);
        let address = OtlpAddress::read(&url.value).filter(|address| allowed || !address.plaintext);
        let Some(address) = address else {
            let message = format!(
                "\"{}\" is not an https address (http needs allow_plaintext: true)",
                url.value
            );
            self.reader.mistake(url.at, message);
            return None;
        };
        let token = match &written.token {
            Some(token) => Some(self.secret_line(Some(token))?),
            None => None,
        };
        Some(OtlpSettings {
            address,
            ca: self.authority(written.ca.as_ref())?,
            token,
        })
    }

    fn authority(&mut self, written: Option<&Written<String>>) -> Option<Option<PathBuf>> {
        match written {
            Some(ca) => self.existing_path(Some(ca)).map(Some),
            None => Some(None),
        }
    }
}
