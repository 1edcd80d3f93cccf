//! Fits, refusals, and what ties an answer to a question.

use super::*;
use hickory_proto::rr::RData;
use std::net::Ipv4Addr;

fn query(edns: Option<u16>) -> Message {
    let mut message = ask(7, Query::query(Name::from_ascii("Web.Example.").expect("name"), RecordType::A));
    message.edns = edns.map(|size| {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        edns
    });
    message
}

fn asked(edns: Option<u16>, transport: Transport) -> Asked {
    match read(&query(edns).to_vec().expect("encodes"), transport) {
        Incoming::Query(asked) => *asked,
        other => panic!("{other:?}"),
    }
}

fn many(count: u32) -> Sections {
    let name = Name::from_ascii("web.example.").expect("name");
    let answers = (0..count).map(|i| Record::from_rdata(name.clone(), 5, RData::A(Ipv4Addr::from_bits(i).into())));
    Sections { answers: answers.collect(), ..Sections::default() }
}

#[test]
fn answers_fit_the_transport() {
    for (edns, limit) in [(None, 512), (Some(700), 700), (Some(4096), 1232), (Some(0), 512)] {
        let bytes = asked(edns, Transport::Udp).answer(ResponseCode::NoError, true, many(500));
        let reply = Message::from_vec(&bytes).expect("decodes");
        assert!(bytes.len() <= limit && bytes.len() + 16 > limit, "{edns:?}: {}", bytes.len());
        assert!(reply.metadata.truncation && !reply.answers.is_empty());
        assert_eq!(reply.edns.is_some(), edns.is_some());
    }
    let bytes = asked(None, Transport::Tcp).answer(ResponseCode::NoError, true, many(500));
    let reply = Message::from_vec(&bytes).expect("decodes");
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (500, false));
    let bytes = asked(None, Transport::Tcp).answer(ResponseCode::NoError, true, many(9000));
    assert!(bytes.len() <= 65_535 && !is_truncated(&bytes));
}

#[test]
fn of_a_resolvers_answer_the_first_records_are_taken() {
    let bytes = asked(None, Transport::Tcp).answer(ResponseCode::NoError, true, many(500));
    assert_eq!(first_answers(&bytes, 256).expect("read").len(), 256);
    assert_eq!(first_answers(&bytes, 1000).expect("read").len(), 500);
    assert!(first_answers(&bytes[..1000], 256).is_err() && first_answers(&[], 1).is_err());
}

#[test]
fn hostile_input_is_answered_by_its_header_or_not_at_all() {
    assert!(matches!(read(&[], Transport::Udp), Incoming::Ignored));
    assert!(matches!(read(&[0, 7, 0x80, 0], Transport::Udp), Incoming::Ignored));
    assert!(matches!(read(&[0, 7, 0x01, 0, 0xff], Transport::Udp), Incoming::Refused(_)));
    let mut two = query(None);
    two.queries.push(two.queries[0].clone());
    let Incoming::Refused(bytes) = read(&two.to_vec().expect("encodes"), Transport::Udp) else { panic!("answered") };
    assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::FormErr);
    // Judged by the header alone: what it says to have is never looked for.
    for at in [4, 6, 8, 10] {
        let mut many = query(None).to_vec().expect("encodes");
        many[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        let Incoming::Refused(bytes) = read(&many, Transport::Udp) else { panic!("answered") };
        assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::FormErr);
    }
    let mut update = query(None).to_vec().expect("encodes");
    update[2] = 5 << 3;
    let Incoming::Refused(bytes) = read(&update, Transport::Udp) else { panic!("answered") };
    assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::NotImp);
    let mut transfer = query(None);
    transfer.queries[0].query_type = RecordType::AXFR;
    let Incoming::Refused(bytes) = read(&transfer.to_vec().expect("encodes"), Transport::Tcp) else {
        panic!("answered")
    };
    assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::Refused);
}

#[test]
fn what_is_not_read_is_refused_by_header_and_question() {
    let mut sent = query(Some(1232));
    sent.metadata.checking_disabled = true;
    let bytes = sent.to_vec().expect("encodes");
    let reply = refuse(&bytes).expect("a query");
    assert!(reply.len() < bytes.len());
    let reply = Message::from_vec(&reply).expect("decodes");
    assert_eq!((reply.metadata.id, &reply.queries), (7, &sent.queries));
    assert_eq!(
        (reply.metadata.message_type, reply.metadata.response_code),
        (MessageType::Response, ResponseCode::ServFail)
    );
    assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available && reply.metadata.checking_disabled);
    // A question that is cut off or leads elsewhere is not looked for.
    let mut pointer = bytes.clone();
    pointer[HEADER] = 0xc0;
    for odd in [&bytes[..HEADER], &bytes[..HEADER + 5], &pointer] {
        let reply = Message::from_vec(&refuse(odd).expect("a query")).expect("decodes");
        assert!(reply.queries.is_empty() && reply.metadata.response_code == ResponseCode::ServFail);
    }
    // Answers would bounce.
    let mut response = bytes.clone();
    response[2] |= 0x80;
    assert!(refuse(&response).is_none() && refuse(&bytes[..HEADER - 1]).is_none());
}

#[test]
fn only_the_answer_to_our_question_counts() {
    let sent = asked(Some(4096), Transport::Udp).upstream(99);
    let mut answer = sent.clone();
    answer.metadata.message_type = MessageType::Response;
    assert!(answers(&sent, &answer.to_vec().expect("encodes")));
    let mut other = answer.clone();
    other.metadata.id = 98;
    assert!(!answers(&sent, &other.to_vec().expect("encodes")));
    let mut other = answer.clone();
    other.queries[0].name = Name::from_ascii("evil.example.").expect("name");
    assert!(!answers(&sent, &other.to_vec().expect("encodes")));
    assert!(!answers(&sent, &sent.to_vec().expect("encodes")));
    let mut empty = answer;
    empty.queries.clear();
    assert!(!answers(&sent, &empty.to_vec().expect("encodes")));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        let _ = read(&bytes, Transport::Udp);
        let _ = answers(&query(None), &bytes);
        proptest::prop_assert!(refuse(&bytes).is_none_or(|reply| reply.len() <= bytes.len()));
    }
}
