//! DNS messages: what a client asked, and answers that fit its transport.
//!
//! Pure. Owns header rules (RFC 1035), EDNS0 (RFC 6891), truncation, and the checks that tie an upstream's answer to
//! our question. Knows no zone.

use hickory_proto::ProtoError;
use hickory_proto::op::{Edns, Header, HeaderCounts, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder, DecodeError};

/// The largest query taken: a question is at most 261 bytes, the rest is EDNS options.
pub(crate) const LARGEST_QUERY: usize = 4096;
/// What we say we take over UDP, and never exceed: passes every usual MTU unfragmented (DNS flag day 2020).
pub(crate) const UDP_PAYLOAD: u16 = 1232;
/// What a client without EDNS takes over UDP.
const PLAIN_PAYLOAD: u16 = 512;
/// An OPT record without options.
const EDNS: u16 = 11;
const HEADER: usize = 12;
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;
const SERVFAIL: u8 = 2;
/// A pointer to the question's name, which stands behind the header.
const QUESTION: u16 = 0xc000 | HEADER as u16;
/// Records of a query: EDNS and a signature, and some that nobody needs. Each may be as long as a name can be, in twelve
/// bytes of a query.
const MOST_IN_QUERY: u16 = 4;

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
    let op_code = OpCode::from_u8(flags >> 3 & 0x0f);
    if op_code != OpCode::Query {
        return refuse(op_code, ResponseCode::NotImp);
    }
    // Judged by the header, before a name is read.
    let (questions, records) = counts(bytes);
    if questions != 1 || records > MOST_IN_QUERY {
        return refuse(OpCode::Query, ResponseCode::FormErr);
    }
    let Ok(message) = Message::from_vec(bytes) else { return refuse(OpCode::Query, ResponseCode::FormErr) };
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

/// SERVFAIL to what is not read: by its header and, where it is written out, its question. Without EDNS, which a client
/// does without. `None` when it is no query.
pub(crate) fn refuse(bytes: &[u8]) -> Option<Vec<u8>> {
    let [id_high, id_low, flags, more_flags, ..] = *bytes.get(..HEADER)? else { return None };
    if flags & 0x80 != 0 {
        return None;
    }
    let question = written_out(bytes).unwrap_or_default();
    let mut reply = Vec::with_capacity(HEADER + question.len());
    // A response, with opcode, RD and CD as they came, and RA.
    reply.extend([id_high, id_low, 0x80 | flags & 0x79, 0x80 | more_flags & 0x10 | SERVFAIL]);
    reply.extend([0, u8::from(!question.is_empty()), 0, 0, 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    Some(reply)
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
        fit(&reply, self.question.name(), self.limit(), self.transport).unwrap_or_default()
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

    /// Bytes that the client takes.
    pub(crate) fn limit(&self) -> usize {
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
    let mut decoder = BinDecoder::new(answer);
    if decoder.read_slice(HEADER).is_err() {
        return false;
    }
    Query::read(&mut decoder).is_ok_and(|echoed| {
        echoed.name() == question.name()
            && echoed.query_type() == question.query_type()
            && echoed.query_class() == question.query_class()
    })
}

/// The first records of a raw answer section, `most` of them: a name of 255 bytes takes two in a message.
pub(crate) fn first_answers(answer: &[u8], most: u16) -> Result<Vec<Record>, DecodeError> {
    let mut decoder = BinDecoder::new(answer);
    let header = Header::read(&mut decoder)?;
    for _ in 0..header.counts.queries.min(1) {
        Query::read(&mut decoder)?;
    }
    (0..header.counts.answers.min(most)).map(|_| Record::read(&mut decoder)).collect()
}

/// Whether a raw answer has the TC bit.
pub(crate) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|b| b & 0x02 != 0)
}

/// Encodes once, within `limit`: additional records go first, all or none of them, then answers from the end; over UDP
/// with the TC bit.
fn fit(reply: &Message, question: &Name, limit: usize, transport: Transport) -> Result<Vec<u8>, ProtoError> {
    let limit = u16::try_from(limit).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(PLAIN_PAYLOAD));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit - if reply.edns.is_some() { EDNS } else { 0 });
    let header = encoder.place::<Header>()?;
    encoder.emit_all(reply.queries.iter())?;
    let (answers, mut is_cut) = emit(&mut encoder, &reply.answers, question)?;
    let (authorities, is_authority_cut) = emit(&mut encoder, &reply.authorities, question)?;
    is_cut |= is_authority_cut;
    let before = encoder.offset();
    let (mut additionals, are_too_many) = emit(&mut encoder, &reply.additionals, question)?;
    if is_cut || are_too_many {
        encoder.set_offset(before);
        encoder.trim();
        additionals = 0;
    }
    if let Some(edns) = &reply.edns {
        encoder.set_max_size(limit);
        let mut edns = edns.clone();
        edns.set_rcode_high(reply.metadata.response_code.high());
        Record::from(&edns).emit(&mut encoder)?;
        additionals += 1;
    }
    let mut metadata = reply.metadata;
    // Over TCP there is no further way to get more, so the client shall use what it has.
    metadata.truncation = is_cut && transport == Transport::Udp;
    let counts = HeaderCounts { queries: 1, answers, authorities, additionals };
    header.replace(&mut encoder, Header { metadata, counts })?;
    Ok(bytes)
}

/// The bytes of a message's one question, if there is no pointer in it.
fn written_out(message: &[u8]) -> Option<&[u8]> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        let label = usize::from(*message.get(end)?);
        end += 1 + label;
        if label > LONGEST_LABEL || end > HEADER + LONGEST_NAME {
            return None;
        }
        if label == 0 {
            return message.get(HEADER..end + 4);
        }
    }
}

/// How many questions a message says to have, and how many records in all sections.
fn counts(message: &[u8]) -> (u16, u16) {
    let mut counts =
        message.get(4..HEADER).unwrap_or_default().chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    (counts.next().unwrap_or(0), counts.fold(0, u16::saturating_add))
}

/// How many records there was room for, and whether some were left.
fn emit(encoder: &mut BinEncoder<'_>, records: &[Record], question: &Name) -> Result<(u16, bool), ProtoError> {
    let mut count = 0;
    for record in records {
        let before = encoder.offset();
        match emit_one(encoder, record, question) {
            Ok(()) => count += 1,
            Err(ProtoError::MaxBufferSizeExceeded(_)) => {
                // Also what this record has left behind.
                encoder.set_offset(before);
                encoder.trim();
                return Ok((count, true));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((count, false))
}

/// Most records have the name that was asked for: that is two bytes, and no search among the names before it.
fn emit_one(encoder: &mut BinEncoder<'_>, record: &Record, question: &Name) -> Result<(), ProtoError> {
    if record.name != *question {
        return record.emit(encoder);
    }
    encoder.emit_u16(QUESTION)?;
    record.record_type().emit(encoder)?;
    record.dns_class.emit(encoder)?;
    encoder.emit_u32(record.ttl)?;
    let length = encoder.place::<u16>()?;
    record.data.emit(encoder)?;
    let bytes = u16::try_from(encoder.len_since_place(&length)).unwrap_or(u16::MAX);
    length.replace(encoder, bytes)
}

#[cfg(test)]
mod tests;
