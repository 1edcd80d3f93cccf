//! What DNS reads of strangers, over a mutated corpus: questions, answers from upstream, Services and EndpointSlices.

use hickory_proto::op::{Message, MessageType, ResponseCode};

use super::message::{self, Incoming, Sections, Transport};
use super::project::{self, MAX_ENDPOINTS};
use crate::runtime::fuzz;

/// A header and one question for `kubernetes.default.svc.cluster.local`, type A, with EDNS.
fn question() -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        bytes.push(u8::try_from(label.len()).expect("short"));
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Whatever is answered is an answer to what was asked, and fits.
#[test]
fn questions() {
    let bare = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 33, 0, 1];
    fuzz::bytes("questions", &[question(), bare], |input| {
        if let Some(reply) = message::refuse(input) {
            assert!(reply.len() <= input.len() && reply[..2] == input[..2] && reply[2] & 0x80 != 0);
        }
        let mut outcomes = Vec::new();
        for transport in [Transport::Udp, Transport::Tcp] {
            outcomes.push(match message::read(input, transport) {
                Incoming::Ignored => 0,
                Incoming::Refused(reply) => {
                    assert!(reply[..2] == input[..2] && reply[2] & 0x80 != 0);
                    1
                }
                Incoming::Query(asked) => {
                    let reply = asked.answer(ResponseCode::NXDomain, true, Sections::default());
                    assert!(reply.len() <= asked.limit());
                    let reply = Message::from_vec(&reply).expect("our own answer");
                    assert_eq!(reply.metadata.message_type, MessageType::Response);
                    assert_eq!(reply.metadata.id.to_be_bytes(), input[..2]);
                    assert_eq!(&reply.queries, std::slice::from_ref(asked.question()));
                    2 + usize::from(asked.limit() > 512)
                }
            });
        }
        outcomes
    });
}

/// An answer from upstream counts for its own question alone, and gives as many records as are wanted.
#[test]
fn answers() {
    let Incoming::Query(asked) = message::read(&question(), Transport::Udp) else { panic!("a query") };
    let sent = asked.upstream(99);
    let mut answer = sent.clone();
    answer.metadata.message_type = MessageType::Response;
    let answer = answer.to_vec().expect("encoded");
    let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 7].repeat(3);
    let mut with_records = answer.clone();
    with_records[7] = 3;
    with_records.extend(address);
    fuzz::bytes("answers", &[answer, with_records], |input| {
        let counts = message::answers(&sent, input);
        assert!(!counts || (input[..2] == [0, 99] && input[2] & 0x80 != 0));
        if counts {
            assert_eq!(asked.relay(input.to_vec()).get(..2), Some(&[0, 7][..]), "under the client's own number");
        }
        let records = message::first_answers(input, 2).map_or(9, |records| records.len());
        assert!(records <= 2 || records == 9);
        (counts, records, message::is_truncated(input))
    });
}

/// No object becomes more than its bounds.
#[test]
fn objects() {
    fuzz::json("dns-objects", &[], |input| {
        let json = serde_json::to_vec(input).expect("written");
        let service = project::service(&json).ok();
        let service = service.map(|named| (named.is_nameable(), named.is_cut, named.value.publish_not_ready));
        let slice = project::slice(&json).ok().map(|named| {
            assert!(named.value.endpoints.len() <= MAX_ENDPOINTS);
            (named.is_nameable(), named.is_cut, named.value.endpoints.len())
        });
        (service, slice)
    });
}
