package metrics

// Kind is how a metric moves.
type Kind string

const (
	Counter   Kind = "counter"   // only grows; starts at 0 with the node
	Gauge     Kind = "gauge"     // goes up and down
	Histogram Kind = "histogram" // how often within which bound, as _bucket, _sum and _count
)

// Desc describes a metric.
type Desc struct {
	Name   string
	Kind   Kind
	Labels []string
	Help   string // in one sentence, for the scrape and the reference
	Watch  string // what an operator makes of it; may be empty
}

// The metrics, by what they are about.
var (
	build = Desc{"mailcutover_build_info", Gauge, []string{"version", "goversion"},
		"1; the labels say what is running.", ""}

	listenerConnections = Desc{"mailcutover_listener_connections", Gauge, []string{"listener"},
		"Connections of peers that are open.", "At limits.connections further peers get 421."}
	listenerConnectionsTotal = Desc{"mailcutover_listener_connections_total", Counter, []string{"listener"},
		"Connections of peers that were taken.", ""}
	listenerRefused = Desc{"mailcutover_listener_refused_total", Counter, []string{"listener", "reason"},
		"Connections that were refused: connections, connections-per-address, proxy-header, tls.", "connections: raise the limit or find out who comes; proxy-header: proxy_nets doesn't name the load balancer, or a stranger sends the header; tls: handshakes fail."}
	listenerCommands = Desc{"mailcutover_listener_commands_total", Counter, []string{"listener", "verb"},
		"Commands of peers; OTHER if unknown.", ""}
	listenerReplies = Desc{"mailcutover_listener_replies_total", Counter, []string{"listener", "code"},
		"Answers to peers by their code.", "The share of 4yz shows what peers have to try again; a 5yz is final and should have a reason in the log."}
	listenerMessages = Desc{"mailcutover_listener_messages_total", Counter, []string{"listener", "end"},
		"Messages that were read to their end (complete), or not (cut).", "cut: connections break, or peers are slower than limits.data_rate."}
	listenerBytes = Desc{"mailcutover_listener_message_bytes_total", Counter, []string{"listener"},
		"Octets of messages that were read.", ""}
	listenerRepaired = Desc{"mailcutover_listener_repaired_total", Counter, []string{"listener"},
		"Bare CR or LF in messages; with bare_line_ends: repair they were made CRLF.", "Signatures (DKIM, S/MIME) of such messages break."}

	decisions = Desc{"mailcutover_decisions_total", Counter, []string{"reason"},
		"Routing decisions for recipients by their reason.", "table-unavailable, bad-record, regressed and conflict want a look at once; in-phase and unpublished are normal during a switch; no-such-name: recipients that the table lacks."}
	deliveries = Desc{"mailcutover_deliveries_total", Counter, []string{"platform", "origin", "class"},
		"Recipients of messages that reached their end, by the class of the answer that the sender got.", "2yz is delivered. 4yz is tried again by the sender. 5yz goes back to the sender."}
	spooled = Desc{"mailcutover_spooled_total", Counter, []string{"state"},
		"Recipients whose mail was taken into the spool, by why: held (agency closed), waiting (platform not reachable, or another way), failed (refused for good: the sender is told).", "held outside of a switch: an agency is locked, or stuck between two phases."}
	attempts = Desc{"mailcutover_spool_attempts_total", Counter, []string{"platform", "kind", "result"},
		"Attempts to deliver from the spool, by recipient: replay of held mail or retry of waiting mail, and how it ended.", "unavailable: the platform can't be reached. deferred: it puts the mailbox off. in-doubt: a possible duplicate."}
	notices = Desc{"mailcutover_notices_total", Counter, []string{"kind"},
		"Notices to senders that were put into the spool.", "Many: look at what is refused (spool list --state failed)."}
	quarantined = Desc{"mailcutover_quarantined_total", Counter, nil,
		"Recipients whose mail was set aside for a human.", "Above 0: spool list --state quarantined."}
	spoolRecipients = Desc{"mailcutover_spool_recipients", Gauge, []string{"state"},
		"Recipients in the spool.", "held falls to 0 after a switch; waiting falls when a platform is back."}
	spoolMessages = Desc{"mailcutover_spool_messages", Gauge, nil, "Messages in the spool.", "At spool.messages new mail is answered 452."}
	spoolBytes    = Desc{"mailcutover_spool_bytes", Gauge, nil, "Bytes of bodies in the spool.", "At spool.bytes new mail is answered 452."}
	inDoubtTotal  = Desc{"mailcutover_in_doubt_total", Counter, []string{"platform"},
		"Messages whose answer was lost after the final dot, whatever their number of recipients: possible duplicates.", "A switch waits for each until connection_limit has passed."}

	waves = Desc{"mailcutover_waves", Gauge, []string{"state"},
		"Waves by how far they are, as this node sees the table.", "paused: somebody, or the program, has said why: wave show."}
	waveNext = Desc{"mailcutover_wave_next_start_timestamp_seconds", Gauge, nil,
		"When the next agency of a running wave is likely to start, in seconds since 1970; 0: none is to.", ""}
	planStopped = Desc{"mailcutover_plan_stopped", Gauge, nil,
		"1 if the plan is stopped: no wave starts another agency.", "1: look at why, then a releaser lifts it: wave list, wave lift."}
	canaryTries = Desc{"mailcutover_canary_tries_total", Counter, []string{"agency", "part", "result"},
		"Trials of canaries by this node: well or failed. Parts: mail (it went to the platform in force), mailbox (it is there), and logins by imap, submission, pop3, sieve.", "failed: canary list says what was seen. Trials that say nothing, such as of an agency that was switched meanwhile, aren't counted."}
	canarySuccess = Desc{"mailcutover_canary_success_timestamp_seconds", Gauge, []string{"agency", "part"},
		"When a part of a canary was well the last time on this node, in seconds since 1970; absent before the first time.", "Older than several operations.canary_every: it fails, or isn't tried: canary list."}
	noticeWaiting = Desc{"mailcutover_notice_waiting", Gauge, []string{"channel"},
		"Events that a webhook or mail about events hasn't got yet; of the table's on the node only that tells them.", "At 10,000 the oldest are dropped."}
	noticeOldest = Desc{"mailcutover_notice_oldest_seconds", Gauge, []string{"channel"},
		"Age of the oldest event that waits; 0: none does.", "Minutes: the receiver doesn't take them, notice queue says why. After a day they are given up."}
	noticeEvents = Desc{"mailcutover_notice_events_total", Counter, []string{"channel", "result"},
		"Events that the receiver took (sent), or never will (lost: given up after a day or several refusals, or dropped as too many waited).", "lost: nobody is told of them; the log names them."}
	noticeMissed = Desc{"mailcutover_notice_failures_total", Counter, []string{"channel"},
		"Attempts to tell a receiver that failed. They are repeated.", "A few are normal; see mailcutover_notice_oldest_seconds."}
	recallRuns = Desc{"mailcutover_recall_runs", Gauge, nil,
		"Recalls and sweeps under way, of all nodes.", "After a switch some; for hours: recall status."}
	recallMailboxes = Desc{"mailcutover_recall_mailboxes", Gauge, nil,
		"Mailboxes of this node's shares that are still to be brought.", "Falls while a run is under way; standing still: see the alarm recall/RUN."}
	recallLeft = Desc{"mailcutover_recall_left", Gauge, nil,
		"Messages that are not back and mailboxes that were put aside, of runs that are done and that nobody has accepted.", "Above 0: recall status names each."}
	verifyRunning = Desc{"mailcutover_verify_running", Gauge, nil,
		"Agencies whose mailboxes are being compared, by any node.", "After a cutover 1; for hours: verify status."}
	verifyRuns = Desc{"mailcutover_verify_runs_total", Counter, []string{"result"},
		"Comparisons of mailboxes on this node, that came to their end (done) or not (failed).", "failed: it is tried again, five times; see verify status."}
	verifyMailboxes = Desc{"mailcutover_verify_mailboxes_total", Counter, []string{"result"},
		"Mailboxes that this node has compared, or could not read (unreadable).", "Its rate is mailboxes a second. unreadable: nothing is said of their content."}
	verifyFindings = Desc{"mailcutover_verify_findings", Gauge, []string{"kind"},
		"Findings that somebody has still to see to: found, or said to be removed and not confirmed.", "crossed, foreign or clash above 0: verify findings names each."}
	verifyAge = Desc{"mailcutover_verify_age_seconds", Gauge, []string{"agency"},
		"Age of the last comparison of an agency whose mailboxes can be read; -1: there was none.", "Above verify.max_age finalise is refused."}
	retainedCopies = Desc{"mailcutover_retained_copies", Gauge, nil,
		"Retained copies of mail that went to targets.", "They go when their agency is finalised."}
	retainedBytes = Desc{"mailcutover_retained_bytes", Gauge, nil,
		"Bytes of the retained copies on the disk.", "At retained.agency_bytes or retained.total_bytes the oldest go."}
	retainedTotal = Desc{"mailcutover_retained_total", Counter, []string{"result"},
		"Messages that a target took while the way back was open: their copy was kept, or not (failed).", "failed: the mail itself is delivered; see the alarm retained-failed."}
	retainedRemoved = Desc{"mailcutover_retained_removed", Gauge, nil,
		"Copies that were removed since the folder was made, whatever the reason.", "It grows before a finalise: a bound is reached, and a rollback with a dead target would miss them."}
	retainedDamaged = Desc{"mailcutover_retained_damaged_total", Counter, nil,
		"Bodies of copies that were read and are not what was kept.", "Above 0: look at the disk."}

	platformConnections = Desc{"mailcutover_platform_connections", Gauge, []string{"platform", "origin", "host"},
		"Connections to a platform that are open.", "At limits.connections messages wait for a free one."}
	platformDials = Desc{"mailcutover_platform_dials_total", Counter, []string{"platform", "origin", "host", "result"},
		"Attempts to connect, up to EHLO and AUTH: ok or error.", "error: the log says why. A host that fails is left alone for limits.backoff."}
	platformDialSeconds = Desc{"mailcutover_platform_dial_seconds", Histogram, []string{"platform", "origin"},
		"How long an attempt to connect took.", ""}
	platformWaits = Desc{"mailcutover_platform_waits_total", Counter, []string{"platform", "origin", "result"},
		"Messages that asked for a connection: ok or error.", "error: nothing free within limits.queue_wait, or no host can be reached; the sender gets 451."}
	platformWaitSeconds = Desc{"mailcutover_platform_wait_seconds", Histogram, []string{"platform", "origin"},
		"How long a message waited for a connection, connecting included.", "More than some milliseconds: too few connections, or a platform that tarpits."}
	platformAnswers = Desc{"mailcutover_platform_answers_total", Counter, []string{"platform", "origin", "host", "verb", "code"},
		`Answers of a platform to MAIL, RCPT, DATA and the final dot ("."); code 000 if none came.`, `432 and 452 from Exchange: it is short of resources. 550 to RCPT: the table and the platform disagree. 000 to ".": in doubt.`}
	platformClosed = Desc{"mailcutover_platform_connections_closed_total", Counter, []string{"platform", "origin", "reason"},
		"Ends of connections: age, idle, messages, stale, error, abort, other client, shutdown.", "error and stale: the platform ends connections before we do; lower limits.max_age or max_idle."}

	inFlight = Desc{"mailcutover_in_flight", Gauge, []string{"stage"},
		"Messages under way: open (no final dot yet) and dotted (its answer is awaited).", "A switch cuts the open ones of its agency and waits for the dotted ones."}
	inDoubt = Desc{"mailcutover_in_doubt", Gauge, nil,
		"Recipients in doubt whose platform's connection_limit has not passed yet.", "Above 0 a switch of their agency waits."}

	tableRevision = Desc{"mailcutover_table_revision", Gauge, nil,
		"Revision of the table that this node's copy has.", "Differs between nodes for longer than a second or two: one of them doesn't follow."}
	tableAge = Desc{"mailcutover_table_age_seconds", Gauge, nil,
		"Time since the table was last read; -1 if it was not since the start.", "It stays about a second. The lease has a metric of its own."}
	leaseSeconds = Desc{"mailcutover_lease_seconds", Gauge, []string{"agencies"},
		"For how long this node may still decide without the table: for settled and for armed agencies; 0 when that is over.", "0: their mail is put off with 451. The alarms say why."}
	leaseRenewals = Desc{"mailcutover_lease_renewals_total", Counter, []string{"result"},
		"Renewals of this node's lease: taken, or failed.", "failed, again and again: the table can't be reached or refuses this node; the alarms say which."}
	checksTotal = Desc{"mailcutover_checks_total", Counter, []string{"result"},
		"Questions to the table before final dots and logins of armed agencies, several in one: answered, or failed within 250 ms.", "failed: mail of armed agencies is held or put off."}
	localLocks = Desc{"mailcutover_local_locks", Gauge, nil,
		"Agencies that are locked on this node alone.", "Above 0 for longer than the table is away: the log says why it doesn't take the lock."}
	tableUsable = Desc{"mailcutover_table_usable", Gauge, nil,
		"1 if this node's copy of the table can be trusted, else 0.", "0: mail is put off with 451. /readyz says why."}
	mailboxes = Desc{"mailcutover_mailboxes", Gauge, nil,
		"Mailboxes in this node's copy of the table.", ""}
	agencies = Desc{"mailcutover_agencies", Gauge, []string{"phase"},
		"Agencies by phase.", "to-target and to-source are closed: mail is put off. They should not last."}
	agenciesLocked = Desc{"mailcutover_agencies_locked", Gauge, nil,
		"Agencies with an operator's lock: closed whatever their phase.", ""}
	agenciesArmed = Desc{"mailcutover_agencies_armed", Gauge, nil,
		"Agencies that are not settled: about to move, or just moved.", "They depend on the table being reached within lease.armed."}
	agenciesUnusable = Desc{"mailcutover_agencies_unusable", Gauge, nil,
		"Agencies that are closed because their mapping is missing or their record went back.", "Above 0: look at the alarms."}

	directoryAge = Desc{"mailcutover_directory_age_seconds", Gauge, []string{"directory"},
		"Age of the last whole reading of a directory; -1 if there was none since the start.", "Beyond identity.check_age lists can't be checked and agencies not be cut over; beyond identity.unknown.snapshot_age nobody is denied for good."}
	directoryObjects = Desc{"mailcutover_directory_objects", Gauge, []string{"directory"},
		"Objects of the last whole reading.", "A step down: look before the next list; a base, a filter or a right may be another."}
	directoryProblems = Desc{"mailcutover_directory_problems", Gauge, []string{"directory"},
		"Objects of agencies that can't be used.", "Above 0: directory show names them."}
	directoryReadSeconds = Desc{"mailcutover_directory_read_seconds", Gauge, []string{"directory"},
		"How long the last whole reading took.", ""}
	directoryFailures = Desc{"mailcutover_directory_failures_total", Counter, []string{"directory"},
		"Readings that didn't come to their end; they replace nothing.", "Growing: the log says why; the alarm is directory-unread."}
	directoryDrift = Desc{"mailcutover_directory_drift", Gauge, []string{"agency", "blocks"},
		"Differences between the last reading and an agency's lists in force: those that keep it from being cut over (yes), and the others (no).", "yes above 0: list drift names them."}

	logins = Desc{"mailcutover_logins_total", Counter, []string{"protocol", "platform", "cause"},
		"Logins by how they ended: ok, or why not; platform is empty where none was found.", "wrong is what platforms say of passwords. platform: it can't be reached or used. table: this node may not decide. closed and moved are normal during a switch. limit: too many sessions, attempts or waiting logins."}
	loginSeconds = Desc{"mailcutover_login_seconds", Histogram, []string{"protocol"},
		"How long logins took, from the credentials to the answer, waiting for a closed agency and the delay of failures included.", ""}
	loginSessions = Desc{"mailcutover_login_sessions", Gauge, []string{"protocol", "platform"},
		"Sessions of logins.", "After a switch those of the losing platform go to 0 within seconds, by agency: session list."}
	loginSessionsEnded = Desc{"mailcutover_login_sessions_ended_total", Counter, []string{"protocol", "platform", "by"},
		"Sessions that ended, by what ended them: one side, a limit, a switch (moved), a person (operator), this node (drain, table).", "table: sessions stood still for longer than logins.suspend."}
	loginSuspended = Desc{"mailcutover_login_sessions_suspended_total", Counter, []string{"protocol"},
		"How often a session stood still since this node had no right to decide.", "Above 0: the table was away for longer than lease.armed."}
	loginBytes = Desc{"mailcutover_login_bytes_total", Counter, []string{"protocol", "platform", "direction"},
		"Bytes of sessions after the login, counted at their end: to-platform, to-client.", ""}

	alarms = Desc{"mailcutover_alarms", Gauge, nil,
		"Alarms in the list.", "Above 0: somebody has to look."}
	alarmsByKind = Desc{"mailcutover_alarms_by_kind", Gauge, []string{"kind"},
		"Alarms that nobody has cleared, by their key up to its first slash or colon; a kind without any is absent.", "The alert rules tell by it what has to wake somebody."}
	certificateExpiry = Desc{"mailcutover_certificate_expiry_timestamp_seconds", Gauge, []string{"listener"},
		"When a listener's certificate ends, in seconds since 1970; admin api is the API's.", "A certificate that was renewed is read at a reload."}
	clockSeconds = Desc{"mailcutover_clock_timestamp_seconds", Gauge, nil,
		"The node's clock when it was asked, in seconds since 1970.", "Far from Prometheus' own: one of the two is wrong. Leases go by the table's clock, windows and logs by the node's."}
	alarmsRaised = Desc{"mailcutover_alarms_raised_total", Counter, nil,
		"How often an alarm was raised, new or not.", ""}
)

// All returns every metric of ours, in the order of the reference. The Go runtime's and
// the process' own (go_, process_) come on top.
func All() []Desc {
	return []Desc{
		build,
		listenerConnections, listenerConnectionsTotal, listenerRefused, listenerCommands, listenerReplies, listenerMessages, listenerBytes, listenerRepaired,
		decisions, deliveries, spooled, inDoubtTotal,
		attempts, notices, quarantined, spoolRecipients, spoolMessages, spoolBytes,
		waves, waveNext, planStopped,
		canaryTries, canarySuccess,
		noticeWaiting, noticeOldest, noticeEvents, noticeMissed,
		recallRuns, recallMailboxes, recallLeft,
		verifyRunning, verifyRuns, verifyMailboxes, verifyFindings, verifyAge,
		retainedCopies, retainedBytes, retainedTotal, retainedRemoved, retainedDamaged,
		platformConnections, platformDials, platformDialSeconds, platformWaits, platformWaitSeconds, platformAnswers, platformClosed,
		logins, loginSeconds, loginSessions, loginSessionsEnded, loginSuspended, loginBytes,
		inFlight, inDoubt,
		tableRevision, tableAge, tableUsable, leaseSeconds, leaseRenewals, checksTotal, localLocks, mailboxes, agencies, agenciesLocked, agenciesArmed, agenciesUnusable,
		directoryAge, directoryObjects, directoryProblems, directoryReadSeconds, directoryFailures, directoryDrift,
		alarms, alarmsByKind, alarmsRaised, certificateExpiry, clockSeconds,
	}
}
