//! DNS messages: what a client asked, and answers that fit its transport.
//!
//! Pure. Owns header rules (RFC 1035), EDNS0 (RFC 6891), truncation, and the checks that tie an upstream's answer to
//! our question. Knows no zone.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};

/// The largest query taken: a question is at most 261 bytes, the rest is EDNS options.
pub(crate) const LARGEST_QUERY: usize = 4096;
/// What we say we take over UDP, and never exceed: passes every usual MTU unfragmented (DNS flag day 2020).
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// What a client without EDNS takes over UDP.
const PLAIN_PAYLOAD: u16 = 512;

/// How the query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// One datagram.
    Udp,
    /// Length-prefixed stream.
    Tcp,
}

/// A query that can be answered.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    message: Message,
    question: Query,
    transport: Transport,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// To be answered.
    Query(Box<Asked>),
    /// Answered by the header alone.
    Refused(Vec<u8>),
    /// Not to be answered at all: no query, or answers would bounce between servers.
    Ignored,
}

/// Sections of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sections {
    /// Answers.
    pub(crate) answers: Vec<Record>,
    /// Authority: the SOA of negative answers.
    pub(crate) authorities: Vec<Record>,
    /// Additional.
    pub(crate) additionals: Vec<Record>,
}

/// Reads what a client sent.
pub(crate) fn read(bytes: &[u8], transport: Transport) -> Incoming {
    // A response must never be answered, however broken it is.
    let (Some(id), Some(flags)) = (bytes.get(..2), bytes.get(2)) else { return Incoming::Ignored };
    if flags & 0x80 != 0 {
        return Incoming::Ignored;
    }
    let id = u16::from_be_bytes([id[0], id[1]]);
    let refuse = |op_code, code| match Message::error_msg(id, op_code, code).to_vec() {
        Ok(bytes) => Incoming::Refused(bytes),
        Err(_) => Incoming::Ignored,
    };
    let Ok(message) = Message::from_vec(bytes) else { return refuse(OpCode::Query, ResponseCode::FormErr) };
    if message.metadata.op_code != OpCode::Query {
        return refuse(message.metadata.op_code, ResponseCode::NotImp);
    }
    let [question] = message.queries.as_slice() else { return refuse(OpCode::Query, ResponseCode::FormErr) };
    let question = question.clone();
    let asked = Asked { message, question, transport };
    if asked.message.edns.as_ref().is_some_and(|e| e.version() != 0) {
        return Incoming::Refused(asked.answer(ResponseCode::BADVERS, false, Sections::default()));
    }
    let transfer = matches!(asked.question.query_type(), RecordType::AXFR | RecordType::IXFR);
    if transfer || asked.question.query_class() != DNSClass::IN {
        return Incoming::Refused(asked.answer(ResponseCode::Refused, false, Sections::default()));
    }
    Incoming::Query(Box::new(asked))
}

impl Asked {
    /// The question.
    pub(crate) fn question(&self) -> &Query {
        &self.question
    }

    /// How it came.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// An answer without records.
    pub(crate) fn failure(&self, code: ResponseCode) -> Vec<u8> {
        self.answer(code, false, Sections::default())
    }

    /// A whole answer that fits the client's transport; the TC bit tells it to come again over TCP.
    pub(crate) fn answer(&self, code: ResponseCode, authoritative: bool, sections: Sections) -> Vec<u8> {
        let mut reply = Message::response(self.message.metadata.id, OpCode::Query);
        reply.metadata.response_code = code;
        reply.metadata.authoritative = authoritative;
        reply.metadata.recursion_desired = self.message.metadata.recursion_desired;
        reply.metadata.checking_disabled = self.message.metadata.checking_disabled;
        reply.metadata.recursion_available = true;
        reply.queries = vec![self.question.clone()];
        reply.answers = sections.answers;
        reply.authorities = sections.authorities;
        reply.additionals = sections.additionals;
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            edns.set_dnssec_ok(self.wants_dnssec());
            reply.edns = Some(edns);
        }
        fit(reply, self.limit(), self.transport).unwrap_or_default()
    }

    /// The same question for an upstream resolver, under a fresh id. EDNS is hop by hop: only the DO bit goes on.
    pub(crate) fn upstream(&self, id: u16) -> Message {
        let mut query = ask(id, self.question.clone());
        query.metadata.recursion_desired = self.message.metadata.recursion_desired;
        query.metadata.checking_disabled = self.message.metadata.checking_disabled;
        query.metadata.authentic_data = self.message.metadata.authentic_data;
        query.edns = self.message.edns.as_ref().map(|_| {
            let mut edns = Edns::new();
            edns.set_max_payload(self.limit().min(usize::from(UDP_PAYLOAD)) as u16);
            edns.set_dnssec_ok(self.wants_dnssec());
            edns
        });
        query
    }

    /// An upstream's answer to [`Asked::upstream`], as it goes to the client: only the id differs.
    pub(crate) fn relay(&self, mut answer: Vec<u8>) -> Vec<u8> {
        if let Some(id) = answer.get_mut(..2) {
            id.copy_from_slice(&self.message.metadata.id.to_be_bytes());
        }
        answer
    }

    fn wants_dnssec(&self) -> bool {
        self.message.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok)
    }

    fn limit(&self) -> usize {
        match self.transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => {
                let offered = self.message.edns.as_ref().map_or(PLAIN_PAYLOAD, Edns::max_payload);
                usize::from(offered.clamp(PLAIN_PAYLOAD, UDP_PAYLOAD))
            }
        }
    }
}

/// A recursive query of our own.
pub(crate) fn ask(id: u16, question: Query) -> Message {
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.queries = vec![question];
    query
}

/// Whether `answer` is a response to `query`: same id, same question.
pub(crate) fn answers(query: &Message, answer: &[u8]) -> bool {
    let (Some(id), Some(flags), Some(count)) = (answer.get(..2), answer.get(2), answer.get(4..6)) else { return false };
    if id != query.metadata.id.to_be_bytes() || flags & 0x80 == 0 {
        return false;
    }
    let Some(question) = query.queries.first() else { return false };
    // Some resolvers leave the question out of error answers; the id on a connected socket must do then.
    if count == [0, 0] {
        return answer.get(3).is_some_and(|b| b & 0x0f != 0);
    }
    let mut decoder = hickory_proto::serialize::binary::BinDecoder::new(answer);
    if decoder.read_slice(12).is_err() {
        return false;
    }
    use hickory_proto::serialize::binary::BinDecodable;
    Query::read(&mut decoder).is_ok_and(|echoed| {
        echoed.name() == question.name()
            && echoed.query_type() == question.query_type()
            && echoed.query_class() == question.query_class()
    })
}

/// Whether a raw answer has the TC bit.
pub(crate) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|b| b & 0x02 != 0)
}

/// Encodes within `limit`: additional records go first, then answers from the end; over UDP with the TC bit.
fn fit(mut reply: Message, limit: usize, transport: Transport) -> Option<Vec<u8>> {
    // The encoder itself cuts at 65535 bytes and says so in the TC bit.
    let whole = |bytes: &[u8]| bytes.len() <= limit && !is_truncated(bytes);
    let with_all = reply.to_vec().ok()?;
    if whole(&with_all) {
        return Some(with_all);
    }
    reply.additionals.clear();
    let without = reply.to_vec().ok()?;
    if whole(&without) {
        return Some(without);
    }
    // Over TCP there is no further way to get more, so the client shall use what it has.
    reply.metadata.truncation = transport == Transport::Udp;
    let all = std::mem::take(&mut reply.answers);
    let (mut fits, mut too_many) = (0, all.len());
    let mut best = reply.to_vec().ok()?;
    while fits + 1 < too_many {
        let half = usize::midpoint(fits, too_many);
        reply.answers = all.iter().take(half).cloned().collect();
        let bytes = reply.to_vec().ok()?;
        if bytes.len() <= limit && is_truncated(&bytes) == reply.metadata.truncation {
            fits = half;
            best = bytes;
        } else {
            too_many = half;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Name, RData};
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
    fn hostile_input_is_answered_by_its_header_or_not_at_all() {
        assert!(matches!(read(&[], Transport::Udp), Incoming::Ignored));
        assert!(matches!(read(&[0, 7, 0x80, 0], Transport::Udp), Incoming::Ignored));
        assert!(matches!(read(&[0, 7, 0x01, 0, 0xff], Transport::Udp), Incoming::Refused(_)));
        let mut two = query(None);
        two.queries.push(two.queries[0].clone());
        let Incoming::Refused(bytes) = read(&two.to_vec().expect("encodes"), Transport::Udp) else {
            panic!("answered")
        };
        assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::FormErr);
        let mut transfer = query(None);
        transfer.queries[0].query_type = RecordType::AXFR;
        let Incoming::Refused(bytes) = read(&transfer.to_vec().expect("encodes"), Transport::Tcp) else {
            panic!("answered")
        };
        assert_eq!(Message::from_vec(&bytes).expect("decodes").metadata.response_code, ResponseCode::Refused);
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
        }
    }
}
