//! Stories of sinks against receivers that take, refuse, are away and come back.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc;

use serde_json::Value;
use tokio::time::Instant;

use super::*;
use crate::audit::export::Form;

/// How long a sink may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A group as the journal writes it: two records, and a head behind them.
fn group(folder: &Path, first: u64) {
    let head = first + 2;
    let line = |seq: u64, event: &str| {
        format!(
            "{{\"v\":1,\"seq\":{seq},\"at\":\"2026-05-01T12:00:00.000001Z\",\"installation\":\"shop\",\"replica\":\"one\",\"epoch\":1,\"event\":\"{event}\"}}\n"
        )
    };
    append(folder, &line(first, "session.opened"));
    append(folder, &line(first + 1, "session.denied"));
    append(folder, &line(head, "head"));
}

fn append(folder: &Path, text: &str) {
    let path = folder.join("segment-0000000000000001.jsonl");
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn syslog(port: u16, form: Form) -> Receiver {
    Receiver::Syslog(SyslogSettings {
        host: "127.0.0.1".to_owned(),
        port,
        plaintext: true,
        ca: None,
        form,
    })
}

fn start(folder: &Path, receiver: Receiver) -> Sink {
    let settings = Settings {
        name: "siem".to_owned(),
        directory: folder.to_owned(),
        receiver,
    };
    Sink::start(settings).unwrap()
}

fn close(sink: &Sink) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(sink.close());
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn wait_for(sink: &Sink, what: impl Fn(Measures) -> bool) {
    let begun = Instant::now();
    while !what(sink.measures()) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", sink.measures());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The next octet-counted message.
fn message(stream: &mut BufReader<TcpStream>) -> String {
    let mut length = Vec::new();
    stream.read_until(b' ', &mut length).unwrap();
    let length = String::from_utf8(length).unwrap();
    let mut message = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut message).unwrap();
    String::from_utf8(message).unwrap()
}

#[test]
fn records_go_out_in_order_once_their_head_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, port) = listener();
    group(folder.path(), 1);
    append(folder.path(), "{\"seq\":4,\"event\":\"session.closed\"}\n");
    let sink = start(folder.path(), syslog(port, Form::Ocsf));
    let (stream, _) = listener.accept().unwrap();
    let mut stream = BufReader::new(stream);
    let messages: Vec<Value> = (0..3)
        .map(|_| serde_json::from_str(&message(&mut stream)).unwrap())
        .collect();
    assert!(messages.iter().all(|it| it["class_uid"].is_u64()), "{messages:?}");
    wait_for(&sink, |it| it.sent == 3);
    // The one without a head stays.
    append(folder.path(), "{\"seq\":5,\"event\":\"head\"}\n");
    wait_for(&sink, |it| it.sent == 5 && it.behind == 0);
    close(&sink);
    assert_eq!(sink.measures().failures, 0);
}

#[test]
fn a_receiver_that_is_away_gets_everything_later() {
    let folder = tempfile::tempdir().unwrap();
    // A port where nobody listens.
    let (gone, port) = listener();
    drop(gone);
    group(folder.path(), 1);
    let sink = start(folder.path(), syslog(port, Form::Rfc5424));
    wait_for(&sink, |it| it.failures > 0 && it.behind == 3);
    group(folder.path(), 4);
    wait_for(&sink, |it| it.failures > 1 && it.behind == 6);
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (stream, _) = back.accept().unwrap();
    let mut stream = BufReader::new(stream);
    for seq in 1..=6 {
        let message = message(&mut stream);
        assert!(message.contains(&format!("\"seq\":{seq},")), "{seq}: {message}");
    }
    wait_for(&sink, |it| it.sent == 6 && it.behind == 0);
    // Its end is noticed before the next batch, so nothing is written into a dead connection.
    drop(stream);
    group(folder.path(), 7);
    let (stream, _) = back.accept().unwrap();
    assert!(message(&mut BufReader::new(stream)).contains("\"seq\":7,"));
    close(&sink);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (listener, port) = listener();
    group(folder.path(), 1);
    let sink = start(folder.path(), syslog(port, Form::Cef));
    let (_first, _) = listener.accept().unwrap();
    wait_for(&sink, |it| it.sent == 3);
    close(&sink);
    group(folder.path(), 4);
    let sink = start(folder.path(), syslog(port, Form::Cef));
    let (stream, _) = listener.accept().unwrap();
    let first = message(&mut BufReader::new(stream));
    assert!(first.starts_with("CEF:0|"), "{first}");
    wait_for(&sink, |it| it.sent == 3);
    close(&sink);
    // Whoever spoils the file is told, instead of being sent everything again.
    std::fs::write(folder.path().join("sink-siem.delivered"), "x").unwrap();
    let settings = Settings {
        name: "siem".to_owned(),
        directory: folder.path().to_owned(),
        receiver: syslog(port, Form::Cef),
    };
    let error = Sink::start(settings).unwrap_err();
    assert!(
        error.to_string().contains("remove it to send all again"),
        "{error}"
    );
}

/// Answers each request with the next status; hands out what was asked.
fn collector(statuses: Vec<&'static str>) -> (u16, mpsc::Receiver<(String, Value)>) {
    let (listener, port) = listener();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut statuses = statuses.into_iter();
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let lower = head.to_ascii_lowercase();
                let Some(length) = lower.split("content-length: ").nth(1) else {
                    break;
                };
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let Some(status) = statuses.next() else { return };
                let answer = "{\"partialSuccess\":{}}";
                let text = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{answer}",
                    answer.len()
                );
                stream.get_mut().write_all(text.as_bytes()).unwrap();
                if tell.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                    return;
                }
            }
        }
    });
    (port, told)
}

#[test]
fn a_collector_of_logs_acknowledges_each_batch() {
    let folder = tempfile::tempdir().unwrap();
    group(folder.path(), 1);
    let (port, told) = collector(vec!["503 Service Unavailable", "200 OK", "200 OK"]);
    let address = OtlpAddress::read(&format!("http://127.0.0.1:{port}/v1/logs")).unwrap();
    let receiver = Receiver::Otlp(OtlpSettings {
        address,
        ca: None,
        token: Some(crate::domain::Secret::new("a token".to_owned())),
    });
    let sink = start(folder.path(), receiver);
    let (head, refused) = told.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer a token\r\n"), "{head}");
    let (_, taken) = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!(refused, taken);
    let resource = taken.pointer("/resourceLogs/0/resource/attributes").unwrap();
    assert!(resource.to_string().contains("\"gatepost\""), "{resource}");
    let records = taken.pointer("/resourceLogs/0/scopeLogs/0/logRecords").unwrap();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(records[1]["eventName"], "session.denied");
    assert_eq!(records[1]["severityText"], "WARN");
    assert_eq!(records[1]["timeUnixNano"], "1777636800000001000");
    let body = records[1]["body"]["stringValue"].as_str().unwrap();
    assert!(body.contains("\"seq\":2,"), "{body}");
    wait_for(&sink, |it| it.sent == 3);
    assert_eq!(sink.measures().failures, 1);
    group(folder.path(), 4);
    told.recv_timeout(PATIENCE).unwrap();
    wait_for(&sink, |it| it.sent == 6 && it.behind == 0);
    close(&sink);
}

#[test]
fn addresses_of_collectors() {
    let read = |url: &str| OtlpAddress::read(url).map(|it| (it.host, it.port, it.path, it.plaintext));
    let here = |host: &str, port, path: &str, plain| Some((host.to_owned(), port, path.to_owned(), plain));
    assert_eq!(read("https://c:4318/v1/logs"), here("c", 4318, "/v1/logs", false));
    assert_eq!(read("http://[::1]:1/x?y=z"), here("::1", 1, "/x?y=z", true));
    assert_eq!(read("https://c"), here("c", 443, "/", false));
    for wrong in [
        "c:4318",
        "/v1/logs",
        "ftp://c/x",
        "https://user:secret@c/",
        "",
        "https://",
    ] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}
