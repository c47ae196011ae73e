//! Real handshakes on loopback: who gets in, who is told apart, who is turned away.

use std::time::Duration;

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};

use super::*;

const VOTER_1: &str = "spiffe://team-a/voter/1";
const VOTER_2: &str = "spiffe://team-a/voter/2";
const SHORT: Duration = Duration::from_millis(20);

struct Server {
    listener: TcpListener,
    address: String,
    acceptor: Acceptor,
}

impl Server {
    async fn new(material: TlsMaterial) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Server { listener, address, acceptor: Acceptor::new(material) }
    }

    async fn accept(&self) -> Result<Accepted, AcceptError> {
        self.acceptor.accept(self.listener.accept().await.unwrap().0).await
    }

    /// Both ends of one connection.
    async fn meet(
        &self,
        client: &TlsMaterial,
        expect: Option<(Role, u64)>,
    ) -> (Result<Accepted, AcceptError>, Result<client::TlsStream<TcpStream>, ConnectError>) {
        let connector = Connector::new(client.clone());
        tokio::join!(self.accept(), connector.connect(&self.address, expect))
    }

    /// What the server says of a caller that sends `bytes`, and what it answers.
    async fn talk_raw(&self, bytes: &[u8]) -> (AcceptError, Vec<u8>) {
        let caller = async {
            let mut caller = TcpStream::connect(&self.address).await.unwrap();
            caller.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (accepted, answer) = tokio::join!(self.accept(), caller);
        (accepted.expect_err("turned away"), answer)
    }
}

#[track_caller]
fn assert_refused_with(error: &impl std::error::Error, words: &str) {
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test]
async fn two_voters_meet_and_know_each_other() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let (accepted, connected) = server.meet(&authority.material(VOTER_2), Some((Role::Voter, 1))).await;
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
    assert_eq!(accepted.peer.to_string(), VOTER_2);

    connected.write_all(b"ping").await.unwrap();
    connected.flush().await.unwrap();
    let mut read = [0; 4];
    accepted.stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");

    assert!(connected.get_ref().0.nodelay().unwrap() && accepted.stream.get_ref().0.nodelay().unwrap());
    let session = connected.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(ALPN));
    assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn each_role_is_told() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    for role in Role::ALL {
        let client = authority.material(&format!("spiffe://team-a/{role}/9"));
        let (accepted, connected) = server.meet(&client, None).await;
        let peer = accepted.unwrap().peer;
        assert_eq!((peer.role, peer.node_id), (role, 9));
        connected.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_authority_is_refused_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = Server::new(ours.material(VOTER_1)).await;
    let (accepted, connected) = server.meet(&theirs.material(VOTER_2), None).await;
    assert!(matches!(accepted, Err(AcceptError::Handshake { .. })));
    assert!(matches!(&connected, Err(ConnectError::Handshake { .. })));
    assert_refused_with(&connected.unwrap_err(), "invalid peer certificate");

    // A caller that trusts us, but whose own certificate another authority issued.
    let impostor = theirs.issue(VOTER_2);
    let both = Verifiers::new(&impostor.files, &[ours.0.der().clone()]).unwrap();
    let chain = certificates("certificate", &impostor.files.cert).unwrap();
    let (_, config) = both.configurations(&impostor.files, chain, private_key(&impostor.files.key).unwrap()).unwrap();
    assert_refused_with(&refusal_of(&server, Arc::new(config)).await, "invalid peer certificate");
}

/// Connects with a configuration of the test's own; the server's reason for turning it away.
async fn refusal_of(server: &Server, config: Arc<ClientConfig>) -> AcceptError {
    let caller = async {
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        let mut stream = TlsConnector::from(config).connect(server_name(), tcp).await.unwrap();
        stream.read_u8().await.expect_err("the refusal arrives on the first read")
    };
    let (accepted, _) = tokio::join!(server.accept(), caller);
    let error = accepted.expect_err("turned away");
    assert!(matches!(error, AcceptError::Handshake { .. }), "{error}");
    error
}

#[tokio::test]
async fn a_caller_without_a_certificate_is_refused() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    assert_refused_with(&refusal_of(&server, Arc::new(config)).await, "peer sent no certificates");
}

#[tokio::test]
async fn another_cluster_of_the_same_authority_is_refused_on_both_sides() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let (accepted, connected) = server.meet(&authority.material("spiffe://team-b/voter/2"), None).await;
    let accepted = accepted.unwrap_err();
    assert!(matches!(&accepted, AcceptError::WrongCluster { cluster, .. } if cluster == "team-a"), "{accepted}");
    let connected = connected.unwrap_err();
    assert!(matches!(&connected, ConnectError::WrongCluster { cluster, .. } if cluster == "team-b"), "{connected}");
}

#[tokio::test]
async fn a_certificate_that_speaks_for_nobody_is_turned_away() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let nobody = authority.issue("https://example.org/");
    let verifiers = Verifiers::new(&nobody.files, &[authority.0.der().clone()]).unwrap();
    let chain = certificates("certificate", &nobody.files.cert).unwrap();
    let key = private_key(&nobody.files.key).unwrap();
    let (_, config) = verifiers.configurations(&nobody.files, chain, key).unwrap();
    let caller = async {
        let tcp = TcpStream::connect(&server.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(server_name(), tcp).await.unwrap()
    };
    let (accepted, _stream) = tokio::join!(server.accept(), caller);
    assert!(matches!(accepted, Err(AcceptError::Identity { .. })));
}

#[tokio::test]
async fn a_connector_takes_only_the_node_that_it_meant() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let client = authority.material(VOTER_2);
    for meant in [(Role::Voter, 3), (Role::Learner, 1)] {
        let (_, connected) = server.meet(&client, Some(meant)).await;
        let error = connected.unwrap_err();
        assert!(
            matches!(&error, ConnectError::WrongNode { identity, role, node_id, .. }
                if identity.node_id == 1 && (*role, *node_id) == meant),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_agent_or_client_can_not_pose_as_a_node() {
    let authority = Authority::new();
    for role in Role::ALL {
        let server = Server::new(authority.material(&format!("spiffe://team-a/{role}/1"))).await;
        let (_, connected) = server.meet(&authority.material(VOTER_2), None).await;
        if role.is_node() {
            connected.unwrap();
        } else {
            let error = connected.unwrap_err();
            assert!(matches!(&error, ConnectError::NotANode { identity, .. } if identity.role == role), "{error}");
        }
    }
}

/// A `ClientHello` of TLS 1.2, by hand: this build has no TLS 1.2 client.
fn client_hello_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    // TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, no compression
    body.extend([0, 2, 0xc0, 0x2c, 1, 0]);
    // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256
    body.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![0x16, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn tls_1_2_is_refused_with_the_alert_that_says_so() {
    let server = Server::new(Authority::new().material(VOTER_1)).await;
    let (error, answer) = server.talk_raw(&client_hello_1_2()).await;
    assert!(matches!(error, AcceptError::Handshake { .. }), "{error}");
    // alert, fatal, protocol_version (RFC 8446, section 6)
    assert!(answer.starts_with(&[21]) && answer.ends_with(&[2, 70]), "{answer:?}");
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let server = Server::new(Authority::new().material(VOTER_1)).await;
    let (error, _) = server.talk_raw(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(matches!(error, AcceptError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn no_session_is_resumed() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let connector = Connector::new(authority.material(VOTER_2));
    for _ in 0..3 {
        let (accepted, connected) = tokio::join!(server.accept(), connector.connect(&server.address, None));
        let (mut accepted, mut connected) = (accepted.unwrap().stream, connected.unwrap());
        // What the server says after its handshake would carry a ticket.
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
        assert_eq!(connected.read_u8().await.unwrap(), b'x');
        assert_eq!(connected.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connected.get_ref().1.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_reload_holds_for_the_next_accept_and_leaves_connections_alone() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let client = authority.material(VOTER_2);
    let shown = |stream: &client::TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();

    let (accepted, connected) = server.meet(&client, None).await;
    let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
    let before = shown(&connected);

    let renewed = authority.issue(VOTER_1);
    let renewed_der = certificates("certificate", &renewed.files.cert).unwrap().remove(0);
    server.acceptor.clone().reload(renewed.load(None).unwrap()).unwrap();
    let (_, after) = server.meet(&client, None).await;
    assert_eq!(shown(&after.unwrap()), renewed_der);
    assert_ne!(before, renewed_der);

    connected.write_all(b"x").await.unwrap();
    connected.flush().await.unwrap();
    assert_eq!(accepted.stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_reload_to_another_authority_turns_the_old_clients_away() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::new(old.material(VOTER_1)).await;
    let connector = Connector::new(old.material(VOTER_2));
    tokio::join!(server.accept(), connector.connect(&server.address, None)).0.unwrap();
    server.acceptor.reload(new.material(VOTER_1)).unwrap();
    let (accepted, connected) = tokio::join!(server.accept(), connector.connect(&server.address, None));
    assert!(accepted.is_err() && connected.is_err());
    connector.reload(new.material(VOTER_2)).unwrap();
    let (accepted, connected) = tokio::join!(server.accept(), connector.connect(&server.address, None));
    assert!(accepted.is_ok() && connected.is_ok());
}

#[tokio::test]
async fn a_reload_never_changes_who_the_process_is() {
    let authority = Authority::new();
    let acceptor = Acceptor::new(authority.material("spiffe://team-a/learner/1"));
    let connector = Connector::new(authority.material("spiffe://team-a/learner/1"));
    for other in ["spiffe://team-a/learner/2", "spiffe://team-b/learner/1"] {
        let error = acceptor.reload(authority.material(other)).unwrap_err();
        assert_eq!(error.found.to_string(), other);
        connector.reload(authority.material(other)).unwrap_err();
    }
    acceptor.reload(authority.material(VOTER_1)).unwrap();
    connector.reload(authority.material(VOTER_1)).unwrap();
}

#[tokio::test]
async fn silence_ends_at_the_deadline_on_both_sides() {
    let authority = Authority::new();
    let server = Server::new(authority.material(VOTER_1)).await;
    let silent = TcpStream::connect(&server.address).await.unwrap();
    let (connection, _) = server.listener.accept().await.unwrap();
    let error = server.acceptor.accept_within(connection, SHORT).await.unwrap_err();
    assert!(matches!(error, AcceptError::Deadline { peer, .. } if peer == silent.local_addr().unwrap()), "{error}");

    // The listener's backlog takes the connection, and nobody answers.
    let connector = Connector::new(authority.material(VOTER_2));
    let error = connector.connect_within(&server.address, None, SHORT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Deadline { .. }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_told_from_a_failed_handshake() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let connector = Connector::new(Authority::new().material(VOTER_2));
    let error = connector.connect(&unused, None).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Tcp { address, .. } if *address == unused), "{error}");
    let error = connector.connect("no port here", None).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { .. }), "{error}");
}
