//! Records on their way to one partition, and as Kafka stores them (message format 2).

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    indexmap::IndexMap,
    records::{
        Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
        Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    },
};
use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

use super::KafkaError;

/// A message as it is written.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub key: Bytes,
    pub value: Bytes,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

/// What makes a batch that is sent again the same batch (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProducerId {
    pub id: i64,
    pub epoch: i16,
}

impl ProducerId {
    /// For brokers that give none: what is sent again may then be written twice.
    pub(super) const NONE: Self = Self { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH };

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// Sequence numbers wrap to 0, as `DefaultRecordBatch.incrementSequence` has it.
pub(super) fn advance(sequence: i32, count: usize) -> i32 {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    match sequence.checked_add(count) {
        Some(next) => next,
        None => count - (i32::MAX - sequence) - 1,
    }
}

/// Compressed with LZ4. `sequence` is that of its first record.
pub(super) fn encode(
    records: &[Rendered],
    producer: ProducerId,
    sequence: i32,
) -> Result<Bytes, KafkaError> {
    let records: Vec<Record> = (0_i32..)
        .zip(records)
        .map(|(place, rendered)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(place),
            // Only the first one's is written; the others show that they are one batch.
            sequence: match producer.is_none() {
                true => NO_SEQUENCE.wrapping_add(place),
                false => sequence.wrapping_add(place),
            },
            timestamp: rendered.timestamp,
            key: Some(rendered.key.clone()),
            value: Some(rendered.value.clone()),
            headers: IndexMap::new(),
        })
        .collect();
    let mut encoded = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::Lz4 };
    RecordBatchEncoder::encode_with_custom_compression(
        &mut encoded,
        &records,
        &options,
        Some(|plain: &mut BytesMut, out: &mut BytesMut, _: Compression| {
            // Kafka's reader takes independent blocks only.
            let info = FrameInfo::new().block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, out.writer());
            encoder.write_all(plain)?;
            encoder.finish()?;
            Ok(())
        }),
    )
    .map_err(|error| KafkaError::Batch(error.to_string()))?;
    Ok(encoded.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bytes::Buf;
    use kafka_protocol::records::RecordBatchDecoder;
    use lz4_flex::frame::FrameDecoder;

    use super::*;

    fn records(count: usize) -> Vec<Rendered> {
        (0..count)
            .map(|n| Rendered {
                key: Bytes::from_static(b"acme"),
                value: format!("{{\"n\":{n}}}").into(),
                timestamp: 1_000 + n as i64,
            })
            .collect()
    }

    #[test]
    fn a_batch_has_its_records_and_is_told_apart_by_its_sequence() {
        let producer = ProducerId { id: 7, epoch: 2 };
        let encoded = encode(&records(300), producer, 41).unwrap();
        let info = RecordBatchDecoder::decode_batch_info(&mut encoded.clone()).unwrap();
        let [info] = info.as_slice() else { panic!("{} batches", info.len()) };
        assert_eq!((info.record_count, info.base_sequence), (300, 41));
        assert_eq!((info.producer_id, info.producer_epoch), (7, 2));
        assert_eq!(info.compression, Compression::Lz4);
        let unpack = |packed: &mut Bytes, _: Compression| {
            let mut plain = Vec::new();
            FrameDecoder::new(packed.reader()).read_to_end(&mut plain)?;
            Ok(Bytes::from(plain))
        };
        let read =
            RecordBatchDecoder::decode_with_custom_compression(&mut encoded.clone(), Some(unpack));
        let read = read.unwrap().records;
        assert_eq!(read.len(), 300);
        assert_eq!(read[299].value.as_deref(), Some(&b"{\"n\":299}"[..]));
        assert_eq!((read[299].timestamp, read[299].offset), (1_299, 299));
        assert!(encoded.len() < 3_000, "{} bytes", encoded.len());
    }

    #[test]
    fn a_producer_without_an_id_has_no_sequence() {
        let encoded = encode(&records(2), ProducerId::NONE, 5).unwrap();
        let info = RecordBatchDecoder::decode_batch_info(&mut encoded.clone()).unwrap();
        assert_eq!((info[0].producer_id, info[0].base_sequence, info.len()), (-1, -1, 1));
    }

    #[test]
    fn sequences_wrap_to_nought() {
        assert_eq!(advance(5, 7), 12);
        assert_eq!(advance(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 2, 10), 7);
        // A batch over the wrap is one batch still.
        let encoded = encode(&records(9), ProducerId { id: 1, epoch: 0 }, i32::MAX - 3).unwrap();
        assert_eq!(RecordBatchDecoder::decode_batch_info(&mut encoded.clone()).unwrap().len(), 1);
    }
}
