#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

// Leader epochs (KIP-320) came with librdkafka 2.1; Debian 12 has 2.0.2. -1: unknown.
static inline int32_t rig_message_leader_epoch(const rd_kafka_message_t *message) {
#if RD_KAFKA_VERSION >= 0x020100ff
  return rd_kafka_message_leader_epoch(message);
#else
  (void)message;
  return -1;
#endif
}

static inline void rig_set_leader_epoch(rd_kafka_topic_partition_t *partition, int32_t epoch) {
#if RD_KAFKA_VERSION >= 0x020100ff
  if (epoch >= 0) rd_kafka_topic_partition_set_leader_epoch(partition, epoch);
#else
  (void)partition;
  (void)epoch;
#endif
}
