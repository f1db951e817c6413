"""What happens on each failure, and the tests that make it and see the outcome."""

from dataclasses import dataclass
from typing import Final

_SESSION: Final = "tests/integration/session"
_CONNECTION: Final = f"{_SESSION}/test_connection.py"
_LOGINS: Final = f"{_SESSION}/test_logins.py"
_LOGOUTS: Final = f"{_SESSION}/test_logouts.py"
_CREDENTIALS: Final = f"{_SESSION}/test_credentials.py"
_PAIRING: Final = f"{_SESSION}/test_pairing.py"
_REQUESTS: Final = f"{_SESSION}/test_pairing_requests.py"
_CONTROLLER: Final = "tests/integration/test_controller.py"
_CLUSTER: Final = "tests/integration/test_controller_failures.py"
_NODE: Final = "tests/e2e/test_failures.py"
_RECOVERY: Final = "tests/e2e/test_recovery.py"


@dataclass(frozen=True, slots=True)
class Failure:
    """One row; each test is a file and the name of a function in it."""

    seen: str
    does: str
    conditions: str
    tests: tuple[tuple[str, str], ...]


FAILURES: Final = (
    Failure(
        "dial fails, proxy refuses, DNS",
        "retry 1, 2, 4 ... 60 s with jitter, for ever",
        "Connected=False ProxyFailed / ConnectFailure",
        (
            (_CONNECTION, "test_a_dial_that_fails_is_told_and_retried"),
            (_CONNECTION, "test_a_dial_that_fails_is_retried_for_ever"),
            (_CONNECTION, "test_a_proxy_that_refuses_shows_only_its_status"),
            (_CONNECTION, "test_a_black_hole_is_left_and_retried"),
            (_CONNECTION, "test_a_server_that_falls_silent_or_cuts_before_the_qr"),
        ),
    ),
    Failure(
        "disconnect, keepalive timeout, 500, 503, 515",
        "reconnect; a worker silent too long is killed and started again",
        "Reconnecting",
        (
            (_CONNECTION, "test_a_disconnect_is_mended"),
            (_CONNECTION, "test_a_stream_error_is_survived"),
            (_LOGINS, "test_a_refused_login_is_tried_again"),
            (_LOGINS, "test_a_registration_that_is_refused_is_tried_again"),
            (_CONNECTION, "test_a_server_that_is_away_is_waited_for"),
            (_CONNECTION, "test_a_keepalive_that_is_not_answered_is_told_and_the_worker_replaced"),
            (_CONNECTION, "test_a_connection_on_which_nothing_flows_is_noticed_before_the_library_does"),
            (_CONNECTION, "test_a_worker_that_stands_still_is_killed_and_started_again"),
            (_CONNECTION, "test_a_worker_that_is_killed_is_started_again"),
            (f"{_SESSION}/test_kills.py", "test_kills_at_random_moments_cost_no_pairing"),
            (f"{_SESSION}/test_many.py", "test_a_simulator_restart_under_fifty_connected_sessions_loses_none"),
            (_RECOVERY, "test_a_killed_worker_is_started_again_inside_the_pod"),
        ),
    ),
    Failure(
        "QR window over without scan",
        "next attempt, up to spec.pairing.attempts",
        "QRReady Expired -> AttemptsExhausted, Stalled",
        (
            (_PAIRING, "test_windows_without_a_scan_are_exhausted_and_begun_anew_by_a_relink"),
            (_PAIRING, "test_windows_that_are_exhausted_stay_so_over_a_restart"),
            (_PAIRING, "test_qrs_that_run_out_end_the_window"),
        ),
    ),
    Failure(
        "scanned, but refused (HMAC, no multi-device, server error, phone never finishes)",
        "attempt failed with its reason; next attempt",
        "AuthPaired=False NotPaired, message has the reason",
        (
            (_PAIRING, "test_a_scan_that_the_client_refuses_fails_the_attempt"),
            (_PAIRING, "test_a_phone_without_multi_device_fails_the_attempt"),
            (_PAIRING, "test_a_phone_that_never_finishes_costs_its_window"),
            (_PAIRING, "test_a_device_removed_soon_after_its_pairing_fails_the_attempt"),
        ),
    ),
    Failure(
        "515 after pairing, then no login",
        "restart the worker with the new credentials; after 3 without login wipe and pair anew",
        "",
        (
            (_PAIRING, "test_a_scan_whose_login_does_not_come_is_logged_in_by_another_worker"),
            (_PAIRING, "test_a_scan_that_never_logs_in_is_wiped_and_paired_anew"),
            (_PAIRING, "test_a_login_after_the_scan_that_is_refused_for_a_while_costs_no_pairing"),
        ),
    ),
    Failure(
        "other phone than spec.phone scans",
        "log the device out, wipe, next attempt",
        "AuthPaired=False PhoneMismatch",
        (
            (_PAIRING, "test_another_phone_is_unlinked_and_the_next_attempt_shown"),
            (_PAIRING, "test_another_phone_uses_up_the_attempts"),
        ),
    ),
    Failure(
        "the phone that scanned is claimed by another session",
        "log the device out, wipe; Ready is never True without the claim",
        "PhoneClaimed=False PhoneClaimConflict, Stalled",
        (
            (_PAIRING, "test_a_phone_that_another_session_claims_is_unlinked_and_held"),
            (_CONTROLLER, "test_a_scanned_phone_that_another_session_has_paired_is_rejected"),
        ),
    ),
    Failure(
        "401 logged out / device removed",
        "credentials wiped; onLoggedOut Relink: one new pairing (then backoff 5 min doubling to 6 h), Hold: wait",
        "LoggedOut",
        (
            (_LOGOUTS, "test_a_logout_offers_one_new_pairing_and_then_waits_longer_each_time"),
            (_LOGOUTS, "test_a_logout_is_held_where_asked_for"),
            (_RECOVERY, "test_a_device_removed_on_the_phone_is_offered_anew"),
        ),
    ),
    Failure(
        "403 main device gone",
        "as 401",
        "MainDeviceGone",
        (
            (_LOGOUTS, "test_a_logout_offers_one_new_pairing_and_then_waits_longer_each_time"),
            (_LOGOUTS, "test_a_logout_is_held_where_asked_for"),
        ),
    ),
    Failure(
        "402 temporary ban",
        "sleep until it expires, keep the credentials, never re-pair",
        "TemporaryBan, nextRetryAt",
        (
            (_LOGINS, "test_a_temporary_ban_is_waited_for"),
            (_LOGINS, "test_a_temporary_ban_of_an_unknown_kind_is_waited_for"),
            (_LOGINS, "test_a_temporary_ban_ends"),
        ),
    ),
    Failure(
        "405 client outdated",
        "keep the credentials, never re-pair, retry hourly or with a new image",
        "ClientOutdated, Stalled",
        (
            (_LOGINS, "test_an_outdated_client_keeps_its_credentials"),
            (_LOGINS, "test_an_outdated_client_is_tried_at_once_with_a_new_pod"),
        ),
    ),
    Failure(
        "stream replaced by another client",
        "hold for 5 min, then one try, doubling; never fight",
        "StreamReplaced, Stalled after the third",
        (
            (_LOGINS, "test_a_replaced_stream_is_not_fought_over"),
            (_LOGINS, "test_a_copy_of_the_credentials_takes_the_connection_over"),
        ),
    ),
    Failure(
        "passkey demanded",
        "cannot be done by this client: stop the attempt",
        "QRReady=False PasskeyRequired, Stalled",
        ((_PAIRING, "test_a_passkey_demand_stops_the_attempt"),),
    ),
    Failure(
        "pairing code: rate limited",
        "wait 5 min doubling",
        "RateLimited",
        ((_REQUESTS, "test_a_code_that_is_rate_limited_is_waited_for_longer_each_time"),),
    ),
    Failure(
        "credential file corrupt or unreadable",
        "moved aside (kept, at most 3), pair anew",
        "CredentialsCorrupt",
        (
            (_CREDENTIALS, "test_corrupt_credentials_are_moved_aside"),
            (_CREDENTIALS, "test_only_the_last_three_corrupt_databases_are_kept"),
        ),
    ),
    Failure(
        "volume full or read-only",
        "reported; nothing overwritten; retries",
        "PodReady=False, message",
        (
            (_CREDENTIALS, "test_a_volume_that_is_full_is_told_and_comes_back"),
            (_CREDENTIALS, "test_a_volume_that_is_full_while_a_phone_scans_is_told_and_comes_back"),
            (_CREDENTIALS, "test_a_volume_that_turns_read_only_is_told_and_comes_back"),
            (_CREDENTIALS, "test_a_volume_that_is_read_only_from_the_start_is_told_and_comes_back"),
            (_CLUSTER, "test_a_volume_that_cannot_be_used_is_told_as_the_pod_reports_it"),
        ),
    ),
    Failure(
        "Bad MAC / undecryptable messages",
        "counted; the session stays",
        "metric",
        ((_CONNECTION, "test_messages_that_cannot_be_decrypted_are_counted_and_the_session_stays"),),
    ),
    Failure(
        "API server away",
        "the session goes on; reports are sent when it is back, the last state wins",
        "",
        (
            (_CONNECTION, "test_an_api_server_that_is_away_is_told_the_last_state"),
            (_CONNECTION, "test_reports_and_qr_wait_for_the_api_server"),
        ),
    ),
    Failure(
        "pod deleted, node drained, OOM",
        "a new pod on the same volume; no new pairing",
        "PodReady, Connected=Unknown meanwhile",
        (
            (_RECOVERY, "test_a_deleted_pod_comes_back_connected_without_a_new_pairing"),
            (_NODE, "test_an_evicted_pod_comes_back_without_a_new_pairing"),
            (_NODE, "test_a_killed_supervisor_is_restarted_in_its_pod_without_a_new_pairing"),
            (_CLUSTER, "test_a_deleted_pod_is_replaced_on_the_same_volume"),
            (_CLUSTER, "test_a_drained_node_costs_no_pairing"),
            (_CLUSTER, "test_an_evicted_pod_is_replaced"),
            (_CLUSTER, "test_a_container_that_needs_too_much_memory_says_so"),
            (_CLUSTER, "test_a_container_that_ends_again_and_again_is_told"),
        ),
    ),
    Failure(
        "pod refused, reference missing, expansion refused",
        "retried with backoff; the message has the API server's reason and the remedy",
        "PodReady=False PodRejected / ConfigMissing / ExpansionRefused, Stalled",
        (
            (_CLUSTER, "test_a_pod_that_the_api_server_refuses_is_tried_again"),
            (_CLUSTER, "test_a_container_that_cannot_be_made_says_what_is_missing"),
            (_CLUSTER, "test_a_volume_that_cannot_grow_does_not_stop_the_session"),
        ),
    ),
    Failure(
        "node lost",
        "Connected=Unknown NodeLost; no force delete by us: Kubernetes' own pod GC and the out-of-service taint decide",
        "",
        (
            (_CLUSTER, "test_the_pod_of_a_lost_node_is_left_to_kubernetes"),
            (_CONTROLLER, "test_no_report_counts_but_that_of_the_pod_that_runs"),
        ),
    ),
)
