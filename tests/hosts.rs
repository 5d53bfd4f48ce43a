//! Two hosts with a network between them: namespaces joined by a pair of virtual cards, with a limit of bandwidth and with
//! loss. It needs Linux, root, `ip`, `tc` and `nft`; where they are missing the tests say so and pass, unless
//! `RPC_HOSTS=required` is set.
#![cfg(target_os = "linux")]

#[path = "it/certificates.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use certificates::{Authority, Files};
use futures::stream::{self, StreamExt, TryStreamExt};
use rpc::{Connection, ConnectionError, Context, Limits, OpenError, Server, Streaming};

#[rpc::service]
trait Far {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes>;
    async fn count(&self, items: u32) -> rpc::Result<Streaming<u32>>;
    async fn sum(&self, items: Streaming<u32>) -> rpc::Result<u64>;
    async fn peer(&self, cx: &Context) -> rpc::Result<String>;
    async fn hang(&self) -> rpc::Result<()>;
}

struct Host;

impl Far for Host {
    async fn echo(&self, bytes: Bytes) -> rpc::Result<Bytes> {
        Ok(bytes)
    }

    async fn count(&self, items: u32) -> rpc::Result<Streaming<u32>> {
        Ok(Streaming::new(stream::iter(0..items)))
    }

    async fn sum(&self, items: Streaming<u32>) -> rpc::Result<u64> {
        items.try_fold(0, |sum, item| async move { Ok(sum + u64::from(item)) }).await
    }

    async fn peer(&self, cx: &Context) -> rpc::Result<String> {
        Ok(cx.peer().map(|peer| peer.endpoint.clone()).unwrap_or_default())
    }

    async fn hang(&self) -> rpc::Result<()> {
        std::future::pending().await
    }
}

/// How long anything may take: TCP waits minutes before it gives a segment up, and this is about what arrives in the end.
const HANG: Duration = Duration::from_secs(120);

fn limits() -> Limits {
    Limits::default().keepalive_interval(Duration::from_millis(500)).keepalive_timeout(Duration::from_secs(2))
}

/// A command, and what is wrong with it.
fn try_run(words: &str) -> Result<Output, String> {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap_or_default()).args(parts).output();
    let output = output.map_err(|error| format!("`{words}`: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("`{words}`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn run(words: &str) -> Output {
    try_run(words).unwrap_or_else(|error| panic!("{error}"))
}

/// Two namespaces, `10.77.0.1` and `10.77.0.2`, gone when it is dropped.
struct Hosts {
    server: String,
    client: String,
    /// Certificates for TLS between them: both see the same files.
    files: Files,
    serving: Option<Child>,
}

impl Hosts {
    /// `None`: this machine does not let us.
    fn new(test: &str) -> Option<Self> {
        let name = |side| format!("rpc-{test}-{side}-{}", std::process::id());
        let hosts = Self { server: name("a"), client: name("b"), files: Files::new(), serving: None };
        let lacking = ["tc -V", "nft -v"].iter().map(|words| (*words).to_owned());
        let lacking = lacking.chain([format!("ip netns add {}", hosts.server)]).find_map(|words| try_run(&words).err());
        if let Some(lacking) = lacking {
            let required = std::env::var_os("RPC_HOSTS").is_some_and(|wish| wish == "required");
            assert!(!required, "two hosts are required, and there are none: {lacking}");
            eprintln!("SKIPPED: two hosts need root, ip, tc and nft: {lacking}");
            return None;
        }
        let Self { server, client, .. } = &hosts;
        run(&format!("ip netns add {client}"));
        // Cards have names of 15 letters, and are made where nobody else has one of that name.
        run(&format!("ip -n {server} link add far type veth peer name far netns {client}"));
        for (host, address) in [(server, "10.77.0.1/24"), (client, "10.77.0.2/24")] {
            run(&format!("ip -n {host} address add {address} dev far"));
            run(&format!("ip -n {host} link set far up"));
            run(&format!("ip -n {host} link set lo up"));
        }
        Some(hosts)
    }

    /// 20 Mbit/s in each direction, and each packet in fifty is lost.
    fn worsen(&self) {
        for host in [&self.server, &self.client] {
            run(&format!("tc -n {host} qdisc add dev far root tbf rate 20mbit burst 32kb latency 50ms"));
            run(&format!("ip netns exec {host} nft add table inet far"));
            run(&format!("ip netns exec {host} nft add chain inet far in {{ type filter hook input priority 0 ; }}"));
            run(&format!("ip netns exec {host} nft add rule inet far in iifname far numgen random mod 50 == 0 drop"));
        }
    }

    /// Where the server listens and the client connects, with TLS.
    fn secure(&self) -> (String, String) {
        let authority = Authority::new("hosts");
        let issued = authority.issue(certificates::server(&["10.77.0.1"]));
        let (cert, key) = (self.files.add("cert", &issued.chain), self.files.add("key", &issued.key));
        let ca = self.files.add("ca", &authority.pem());
        (format!("tls://10.77.0.1:7000?cert={cert}&key={key}"), format!("tls://10.77.0.1:7000?ca={ca}"))
    }

    /// This test's own program in another role on one of the hosts.
    fn start(&self, host: &str, role: &str, endpoint: &str) -> Child {
        let program = std::env::current_exe().expect("a test is a program");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", host]).arg(program).args(["--exact", "a_role", "--nocapture", "--test-threads=1"]);
        command
            .env("RPC_ROLE", role)
            .env("RPC_ENDPOINT", endpoint)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip starts programs")
    }

    fn serve(&mut self, endpoint: &str) {
        let mut child = self.start(&self.server, "server", endpoint);
        let out = child.stdout.take().expect("it is piped");
        let listening = BufReader::new(out).lines().any(|line| line.is_ok_and(|line| line.contains("://10.77.0.1:7000")));
        assert!(listening, "the server listens");
        self.serving = Some(child);
    }

    /// Runs a client's role to its end.
    fn client(&self, role: &str, endpoint: &str) {
        let output = self.start(&self.client, role, endpoint).wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{role}: {text}");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(mut serving) = self.serving.take() {
            let _ = serving.kill();
            let _ = serving.wait();
        }
        for host in [&self.server, &self.client] {
            let _ = try_run(&format!("ip netns del {host}"));
        }
    }
}

/// What this program does on one of the hosts. In a plain run it has no role.
#[test]
fn a_role() {
    let Ok(role) = std::env::var("RPC_ROLE") else { return };
    let endpoint = std::env::var("RPC_ENDPOINT").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let work = async {
            match &role[..] {
                "server" => server(&endpoint).await,
                "calls" => calls(&endpoint).await,
                "cut" => cut(&endpoint).await,
                other => panic!("no role is called {other}"),
            }
        };
        tokio::time::timeout(HANG, work).await.expect("it hung");
    });
}

async fn server(endpoint: &str) {
    let server = Server::builder().service(FarServer::new(Host)).limits(limits()).listen(endpoint).await.unwrap();
    writeln!(std::io::stdout(), "{}", server.endpoint()).expect("the test reads on");
    // Whoever started it ends it.
    server.wait().await;
}

async fn far(endpoint: &str) -> (Connection, FarClient) {
    let connection = Connection::builder().limits(limits()).open(endpoint).await.unwrap();
    let far = connection.session().open().await.unwrap();
    (connection, far)
}

async fn calls(endpoint: &str) {
    let (connection, far) = far(endpoint).await;
    assert!(far.peer().await.unwrap().contains("://10.77.0.2:"));
    let beside: FarClient = connection.session().open().await.unwrap();
    // Something large, something long, and many that are small, at once.
    let large = async {
        let message = Bytes::from((0..3_000_000u32).map(|n| n as u8).collect::<Vec<_>>());
        assert_eq!(far.echo(message.clone()).await.unwrap(), message);
    };
    let down = async {
        let items: Vec<_> = far.count(50_000).await.unwrap().try_collect().await.unwrap();
        assert!(items.into_iter().eq(0..50_000));
    };
    let up = async { assert_eq!(far.sum(stream::iter(0..50_000)).await.unwrap(), 1_249_975_000) };
    let small = stream::iter(0..500u32).for_each_concurrent(8, |n| {
        let beside = &beside;
        async move { assert_eq!(beside.echo(n.to_le_bytes().to_vec().into()).await.unwrap()[..], n.to_le_bytes()) }
    });
    tokio::join!(large, down, up, small);
}

/// The cable is pulled: the call that hangs learns of it, and whoever comes afterwards finds the server.
async fn cut(endpoint: &str) {
    let (connection, far) = far(endpoint).await;
    let hanging = tokio::spawn(far.hang());
    assert_eq!(far.echo(Bytes::from_static(b"there")).await.unwrap()[..], b"there"[..]);
    run("ip link set far down");
    let fault = hanging.await.unwrap().unwrap_err();
    assert!(fault.fault().unwrap().may_have_run(), "{fault}");
    assert_eq!(connection.closed().await, ConnectionError::Silent);
    let impatient = Limits::default().handshake(Duration::from_millis(300));
    let error = Connection::builder().limits(impatient).open(endpoint).await.unwrap_err();
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
    run("ip link set far up");
    let again = loop {
        if let Ok(connection) = Connection::open(endpoint).await {
            break connection;
        }
    };
    let far: FarClient = again.session().open().await.unwrap();
    assert_eq!(far.echo(Bytes::from_static(b"again")).await.unwrap()[..], b"again"[..]);
}

const PLAIN: &str = "tcp://10.77.0.1:7000";

#[test]
fn calls_cross_a_network_of_two_hosts() {
    let Some(mut hosts) = Hosts::new("plain") else { return };
    hosts.serve(PLAIN);
    hosts.client("calls", PLAIN);
}

#[test]
fn calls_cross_a_network_that_is_slow_and_loses_packets() {
    let Some(mut hosts) = Hosts::new("worse") else { return };
    hosts.worsen();
    hosts.serve(PLAIN);
    hosts.client("calls", PLAIN);
}

#[test]
fn calls_cross_such_a_network_with_tls() {
    let Some(mut hosts) = Hosts::new("tls") else { return };
    let (server, client) = hosts.secure();
    hosts.worsen();
    hosts.serve(&server);
    hosts.client("calls", &client);
}

#[test]
fn a_cable_that_is_pulled_ends_what_hangs_and_nothing_that_comes_later() {
    let Some(mut hosts) = Hosts::new("cut") else { return };
    hosts.serve(PLAIN);
    hosts.client("cut", PLAIN);
}
