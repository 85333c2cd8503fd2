package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mailcutover/ledger/retained"
	"mailcutover/node"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/spool"
)

// Sources are what is asked at each scrape. Each may be nil; what it would say is then
// left out.
type Sources struct {
	State  func() *routing.State               // a Replica's State
	Status func() replica.Status               // a Replica's Status
	Load   func(id routing.AgencyID) node.Load // a Gate's Load
	Alarms AlarmSet
	Spool  func() spool.Counts      // a Store's, in all
	Lease  func() node.KeeperStatus // a Keeper's Status

	Retained func() retained.Status // a Store's
	Recalls  func() Recalls
	Compared func() Comparisons
	Waves    func() Waves

	Directories func() Directories

	Notices func() []NoticeChannel

	// Canary reports whether an agency has a canary; nil: whoever was tried has one.
	Canary func(routing.AgencyID) bool

	// Certificates says when each listener's certificate ends; nil: there are none.
	Certificates func() map[string]time.Time
}

// Directories are the figures of the directories of persons.
type Directories struct {
	Read  []Directory
	Drift []Drift
}

// Directory is one directory.
type Directory struct {
	Name              string
	Age, Took         time.Duration // of the last whole reading; Age -1: there was none
	Objects, Problems int
	Failures          uint64
}

// Drift is how an agency differs from its lists in force.
type Drift struct {
	Agency        routing.AgencyID
	Blocks, Other int // rows that keep it from being cut over, and the others
}

// Waves are those of the plan.
type Waves struct {
	States  map[string]int
	Next    time.Time // when the next agency is likely to start; zero: none is to
	Stopped bool
}

// Recalls are the runs that bring mail over after a switch.
type Recalls struct {
	Running   int // under way, of all nodes
	Mailboxes int // of this node's shares, still to be brought
	Left      int // not back, or put aside, and not accepted yet
}

// Comparisons are figures of comparing mailboxes.
type Comparisons struct {
	Running int                                // agencies under way, of all nodes
	Open    map[string]int                     // findings that somebody has to see to, by kind
	Ages    map[routing.AgencyID]time.Duration // of the last result; -1: there was none

	// Of this node, since its start.
	Compared, Unreadable uint64 // mailboxes
	Done, Failed         uint64 // runs
}

// AlarmSet is what is asked of an alarm.Set.
type AlarmSet interface {
	Len() int       // alarms in the list
	Raised() uint64 // how often one was raised

	Kinds() map[string]int // alarms in the list, by kind
}

// sourceCollector asks the sources.
type sourceCollector struct {
	from     Sources
	canaries *Canaries
}

// Describe implements prometheus.Collector. It names nothing, so that the registry
// checks what Collect sends instead.
func (*sourceCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *sourceCollector) Collect(out chan<- prometheus.Metric) {
	send := func(d Desc, value float64, labels ...string) {
		kind := prometheus.GaugeValue
		if d.Kind == Counter {
			kind = prometheus.CounterValue
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(d.Name, d.Help, d.Labels, nil), kind, value, labels...)
	}
	if c.from.Status != nil {
		collectStatus(c.from.Status(), send)
	}
	if c.from.State != nil {
		collectState(c.from.State(), c.from.Load, send)
	}
	if c.from.Spool != nil {
		n := c.from.Spool()
		send(spoolMessages, float64(n.Messages))
		send(spoolBytes, float64(n.Bytes))
		for _, s := range spoolStates {
			send(spoolRecipients, float64(n.Of(s)), s.String())
		}
	}
	if c.from.Recalls != nil {
		r := c.from.Recalls()
		send(recallRuns, float64(r.Running))
		send(recallMailboxes, float64(r.Mailboxes))
		send(recallLeft, float64(r.Left))
	}
	if c.from.Waves != nil {
		collectWaves(c.from.Waves(), send)
	}
	if c.from.Compared != nil {
		collectComparisons(c.from.Compared(), send)
	}
	if c.from.Retained != nil {
		collectRetained(c.from.Retained(), send)
	}
	if c.from.Lease != nil {
		collectLease(c.from.Lease(), send)
	}
	if c.canaries != nil {
		c.canaries.collect(c.from.Canary, send)
	}
	if c.from.Notices != nil {
		collectNotices(c.from.Notices(), send)
	}
	if c.from.Directories != nil {
		collectDirectories(c.from.Directories(), send)
	}
	if c.from.Alarms != nil {
		send(alarms, float64(c.from.Alarms.Len()))
		send(alarmsRaised, float64(c.from.Alarms.Raised()))
		for kind, n := range c.from.Alarms.Kinds() {
			send(alarmsByKind, float64(n), kind)
		}
	}
	if c.from.Certificates != nil {
		for listener, end := range c.from.Certificates() {
			send(certificateExpiry, float64(end.Unix()), listener)
		}
	}
	send(clockSeconds, float64(time.Now().UnixMilli())/1000)
}

type sendFunc func(d Desc, value float64, labels ...string)

func collectStatus(s replica.Status, send sendFunc) {
	send(tableRevision, float64(s.Position.Revision))
	age := -1.0
	if !s.Contact.IsZero() {
		age = time.Since(s.Contact).Seconds()
	}
	send(tableAge, age)
	usable := 0.0
	if s.Open {
		usable = 1
	}
	send(tableUsable, usable)
	send(mailboxes, float64(s.Mailboxes))
	send(agenciesUnusable, float64(len(s.Missing)+len(s.Regressed)))
}

func collectWaves(w Waves, send sendFunc) {
	for state, n := range w.States {
		send(waves, float64(n), state)
	}
	next, stopped := 0.0, 0.0
	if !w.Next.IsZero() {
		next = float64(w.Next.Unix())
	}
	if w.Stopped {
		stopped = 1
	}
	send(waveNext, next)
	send(planStopped, stopped)
}

func collectDirectories(all Directories, send sendFunc) {
	for i := range all.Read {
		d := &all.Read[i]
		age := -1.0
		if d.Age >= 0 {
			age = d.Age.Seconds()
		}
		send(directoryAge, age, d.Name)
		send(directoryObjects, float64(d.Objects), d.Name)
		send(directoryProblems, float64(d.Problems), d.Name)
		send(directoryReadSeconds, d.Took.Seconds(), d.Name)
		send(directoryFailures, float64(d.Failures), d.Name)
	}
	for _, d := range all.Drift {
		send(directoryDrift, float64(d.Blocks), string(d.Agency), "yes")
		send(directoryDrift, float64(d.Other), string(d.Agency), "no")
	}
}

func collectComparisons(c Comparisons, send sendFunc) {
	send(verifyRunning, float64(c.Running))
	send(verifyRuns, float64(c.Done), "done")
	send(verifyRuns, float64(c.Failed), "failed")
	send(verifyMailboxes, float64(c.Compared), "compared")
	send(verifyMailboxes, float64(c.Unreadable), "unreadable")
	for kind, n := range c.Open {
		send(verifyFindings, float64(n), kind)
	}
	for agency, old := range c.Ages {
		age := -1.0
		if old >= 0 {
			age = old.Seconds()
		}
		send(verifyAge, age, string(agency))
	}
}

func collectRetained(s retained.Status, send sendFunc) {
	send(retainedCopies, float64(s.Copies))
	send(retainedBytes, float64(s.Bytes))
	send(retainedTotal, float64(s.Kept), "kept")
	send(retainedTotal, float64(s.Failed), "failed")
	removed := 0
	for _, a := range s.Agencies {
		removed += a.Removed.Copies
	}
	send(retainedRemoved, float64(removed))
	send(retainedDamaged, float64(s.Damaged))
}

func collectLease(s node.KeeperStatus, send sendFunc) {
	left := func(until time.Time) float64 { return max(0, time.Until(until).Seconds()) }
	send(leaseSeconds, left(s.SettledUntil), "settled")
	send(leaseSeconds, left(s.ArmedUntil), "armed")
	send(leaseRenewals, float64(s.Renewals-s.RenewalsFailed), "taken")
	send(leaseRenewals, float64(s.RenewalsFailed), "failed")
	send(checksTotal, float64(s.Checks-min(s.Checks, s.ChecksFailed)), "answered")
	send(checksTotal, float64(s.ChecksFailed), "failed")
	send(localLocks, float64(len(s.Locks)))
}

func collectState(state *routing.State, load func(routing.AgencyID) node.Load, send sendFunc) {
	var locked, armed int
	var total node.Load
	add := func(id routing.AgencyID) {
		if load == nil {
			return
		}
		l := load(id)
		total.Open += l.Open
		total.Dotted += l.Dotted
		total.InDoubt += l.InDoubt
	}
	phases := make(map[routing.Phase]int)
	for _, a := range state.Agencies() {
		phases[a.Phase]++
		if a.Locked {
			locked++
		}
		if a.Tightness != routing.Settled {
			armed++
		}
		add(a.ID)
	}
	add("") // fixed addresses
	for _, p := range routing.Phases() {
		send(agencies, float64(phases[p]), p.String())
	}
	send(agenciesLocked, float64(locked))
	send(agenciesArmed, float64(armed))
	if load != nil {
		send(inFlight, float64(total.Open), "open")
		send(inFlight, float64(total.Dotted), "dotted")
		send(inDoubt, float64(total.InDoubt))
	}
}
