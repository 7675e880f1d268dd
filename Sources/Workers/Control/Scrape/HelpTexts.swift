// What each family means, for those who read /metrics. A family that isn't listed gets a text that says nothing wrong.

enum HelpTexts {
  /// The help text of a family, not escaped. `name` as on the pages: a counter's with `_total`.
  static func text(for name: String) -> String { texts[name] ?? unknown }

  static let unknown = "A number of the gateway's workers."

  static let texts: [String: String] = [
    // Connections and delivery
    "rig_connections": "Connections of clients open now, by transport.",
    "rig_connections_refused_total": "Connections that were not opened, by reason.",
    "rig_connections_returned_total":
      "Connections that came back with a cursor, which MAX_CONNECTIONS_PER_MINUTE doesn't count.",
    "rig_connections_displaced_total":
      "Connections closed because their user or address opened a newer one, by limit.",
    "rig_connection_limit_overflows_total":
      "Times that the other workers couldn't be shown how many connections a user or an address has.",
    "rig_subscriptions_total": "Subscriptions of the connections that are open now.",
    "rig_subscription_conditions": "Conditions (objects in oneOf) of all subscriptions.",
    "rig_subscription_fields": "Fields in all conditions.",
    "rig_subscription_bytes": "Memory that the texts of subscriptions take.",
    "rig_ledger_entries": "Connections and sessions that a connection worker's ledger has an entry of.",
    "rig_ledger_bytes":
      "Memory that the ledger takes for what is known of connections and waits for them.",
    "rig_subscriptions_refused_total": "Subscriptions that were not taken, by the limit that they exceed.",
    "rig_deliveries_total": "Events written to clients.",
    "rig_delivery_latency_seconds": "Time from an event's acceptance until it is written to a client.",
    "rig_slow_consumers_total":
      "Connections closed because their client took nothing for SLOW_CONSUMER_S, or less than the log holds.",
    "rig_connections_behind":
      "Connections whose client is slow and that get events from the log at its pace.",
    "rig_adopted_connections_total":
      "Connections that a connection worker has gone on with when another process of its place had died, by why that died.",
    "rig_adoption_dropped_total":
      "Connections that ended with the process that had them, though their sockets or entries were left, by reason.",
    "rig_handed_over_connections_total": "Connections that a retiring connection worker gave to its heir.",
    "rig_adoption_seconds": "How long it took a connection worker to go on with what a dead one had left.",
    "rig_lingering":
      "What connection workers that have been replaced still have: connections, and of these TLS and HTTP/2; event connections; requests.",
    "rig_connections_fell_behind_total": "Times that a connection became one of rig_connections_behind.",
    "rig_events_lost_total": "Times that a client was told that events are missing.",
    "rig_websocket_deflate_connections": "WebSockets open now that are compressed.",
    "rig_websocket_deflate_messages_total":
      "Messages that were compressed (sent: an event counts once per worker, whoever gets it) or expanded (received).",
    "rig_websocket_deflate_bytes_total":
      "Bytes of these messages, plain and compressed, by direction.",
    "rig_websocket_deflate_refused_total":
      "Compressed messages that ended their WebSocket: too_big (1009: more than MAX_EVENT_BYTES), or malformed (1007).",
    "rig_clock_jump_seconds":
      "How far the wall clock is ahead of the time that tokens and events are judged by, while CLOCK_JUMP_DELAY_S isn't over.",
    "rig_turn_seconds": "CPU time of the turns of a worker's loop: for so long nobody else is served.",
    "rig_turn_longest_seconds": "CPU time of the longest turn of a worker's loop since the worker began.",
    "rig_management_refused_total":
      "Requests to the management port that were refused: no right token, or without one the wrong peer, host or origin.",
    "rig_limit": "The configured limit, in the unit of its key.",

    // Sessions
    "rig_users_online": "Users that are online, or were a moment ago.",
    "rig_blacklist_entries": "Sessions on the blacklist.",
    "rig_authorized_work_ended_total":
      "Requests and tunnels that were ended because the session, or the token, that had authorised them was over.",
    "rig_presence_events_dropped_total":
      "Joins and leaves that were not said, because the event ring was full.",

    // Events
    "rig_consumed_events_total": "Events taken in, by source.",
    "rig_consumed_events_forwarded_total": "Events that at least one connection got, by type.",
    "rig_consumed_events_failed_total": "Inputs that are no events, by source.",
    "rig_consumed_event_processing_duration_milliseconds":
      "Time that it takes to check events and put them into the log.",

    // Kafka
    "rig_kafka_connected": "1 while there is a connection to the brokers, else 0.",
    "rig_kafka_consumer_lag": "Records of a partition that have not been taken in.",
    "rig_kafka_consumer_paused": "1 while the consumer is held back by a full ring, else 0.",
    "rig_kafka_client_restarts_total": "Times that a Kafka client was made anew after it failed.",
    "rig_kafka_offset_commits_total": "Commits of offsets.",
    "rig_kafka_offset_commits_failed_total": "Commits of offsets that failed.",
    "rig_kafka_offset_resets_total": "Times that a partition's log had changed under its reader, by topic.",
    "rig_kafka_records_lost_total": "Records that were gone before they were read, by topic.",

    // Proxied requests
    "rig_proxy_requests_total":
      "Requests outside /_rig/; path is the endpoint's, status what became of them in the gateway.",
    "rig_proxied_requests_in_progress": "Requests that are being proxied now.",
    "rig_proxied_requests_retried_total":
      "Requests to services that were sent again because a try failed before the answer, by the worker that did so.",
    "rig_retry_body_bytes": "Bytes of bodies that are kept so that their requests can be sent again.",
    "rig_places_refused_total":
      "Requests refused because a limit, or one client's or API's share of it, was used up.",
    "rig_tunnels": "Proxied requests that have become WebSockets between clients and services, open now.",
    "rig_proxy_request_duration_seconds":
      "Time from a proxied request's head to its end, by class of status.",
    "rig_proxied_bytes_total": "Bytes of the bodies of proxied requests and of their answers.",
    "rig_odd_paths_total":
      "Requests to APIs whose path has several readings, by outcome: refused, or secured by a reading that isn't the path as sent.",
    "rig_request_log_dropped_total": "Records of proxied requests that found no room on their way to a log.",
    "rig_rate_limited_requests_total": "Proxied requests that were too many for their rate limit.",
    "rig_rate_limit_buckets": "Clients, services and topics whose rate limit is not at its full burst.",
    "rig_rate_limit_bytes": "Memory that the rate limits of clients and services take, about.",
    "rig_rate_limit_buckets_displaced_total":
      "Rate limits that were forgotten too early, because there were too many.",
    "rig_waiting_requests": "Requests that wait for a service's response by Kafka or by POST /v3/responses.",
    "rig_responses_total": "Such responses, by the way that they came and by what became of them.",
    "rig_produced_events_total": "Records that the brokers have acknowledged, by topic.",
    "rig_produced_events_failed_total": "Records that could not be produced, by topic.",
    "rig_producer_queued_records": "Records whose acknowledgement hasn't come.",

    // Calls of services
    "rig_calls_total": "Calls of check services and of the key set, by purpose and outcome.",
    "rig_calls_in_progress": "Calls that wait for a service now.",
    "rig_calls_waiting": "Calls that wait for their turn now.",
    "rig_circuit_open": "1 while a service that failed again and again is left alone, else 0.",

    // Rings
    "rig_ring_used_bytes": "Bytes that the slowest reader of a ring has not passed.",
    "rig_ring_capacity_bytes": "Bytes that a ring has for records.",
    "rig_ring_retained_bytes": "Bytes of records that a ring still holds, read or not.",
    "rig_ring_reader_lag_bytes": "Published bytes that a reader of a ring has not passed.",
    "rig_ring_records_total": "Records published in a ring since it was made or reset.",
    "rig_ring_full_total": "Times that a ring had no room for a record, and its source was held back.",
    "rig_unknown_records_total":
      "Records of another release in a ring that a reader passed over, by what is unknown of them.",
    "rig_corrupt_rings_total": "Times that a ring was found to be corrupt by a reader.",

    // HTTP
    "rig_http_requests_total": "HTTP requests answered, by port and class of status.",
    "rig_http_accepted_total": "Connections accepted, by port.",
    "rig_http_accept_exhausted_total": "Accepts that the kernel refused for want of descriptors or memory.",
    "rig_assembly_bytes": "Bytes of bodies and messages that are not whole, or not answered yet, by worker.",
    "rig_assembly_refused_total":
      "Bodies and messages refused because too many bytes were being assembled, by the limit's setting.",
    "rig_http_timeouts_total": "Requests answered 408, by port.",
    "rig_http_too_slow_total":
      "Requests and answers ended because their client was slower than MIN_BODY_RATE, by port and direction.",
    "rig_http_open_connections": "Connections open now, by port.",
    "rig_http_http2_connections_total": "Connections that turned out to speak HTTP/2, by port.",
    "rig_http_http2_streams_total": "Requests that came by HTTP/2, by port.",
    "rig_http_http2_open_streams": "Streams of HTTP/2 connections open now, by port.",
    "rig_http_http2_malformed_total": "Streams reset because of what the client sent, by port.",
    "rig_tls_handshakes_total": "TLS handshakes, by port and result.",
    "rig_service_tls_handshakes_total": "TLS handshakes with services, by result and worker.",
    "rig_tls_reloads_total": "Times that a worker read the certificates again, by result.",
    "rig_tls_certificate_not_after_seconds":
      "End of the validity of the certificate that ends first, in seconds since 1970.",

    // Processes and the gateway
    "rig_process_cpu_seconds_total": "CPU time of a process, user and system.",
    "rig_process_resident_memory_bytes": "Resident memory of a process, shared memory included.",
    "rig_process_open_fds": "Descriptors that a process has open.",
    "rig_process_max_fds": "Descriptors that a process may have open (RLIMIT_NOFILE).",
    "rig_process_threads": "Threads of a process.",
    "rig_process_start_time_seconds": "Start of a process, in seconds since 1970.",
    "rig_worker_heartbeat_age_seconds": "Time since a worker's event loop last said that it turns.",
    "rig_worker_restarts_total": "Restarts of a worker, by reason.",
    "rig_worker_up": "1 while a worker serves, else 0.",
    "rig_keepers":
      "Processes that keep a connection worker's sockets for its successor: that of the living one, and those of dead ones.",
    "rig_poison_records_total":
      "Records that were passed over because processes of a connection worker have died of them, by ring.",
    "rig_spares": "Processes in reserve for connection workers that die (WARM_SPARES).",
    "rig_keeper_losses_total":
      "Keepers that ended before their worker: its connections will end with it.",
    "rig_swaps_total": "Swaps of a worker's process for a fresh one, by result: swapped, failed, refused.",
    "rig_retiring": "1 while a process that has been swapped still has connections, else 0.",
    "rig_supervisor_start_time_seconds": "Start of the supervisor, in seconds since 1970.",
    "rig_build_info": "The release of the gateway; always 1.",
    "rig_scrape_errors_total": "Pages, rings and series that a scrape could not read.",
  ]
}
