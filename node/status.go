package node

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// KeeperStatus describes a keeper, for readiness and for people.
type KeeperStatus struct {
	Node     routing.NodeID
	Instance routing.InstanceID

	Settled, Armed           bool      // may decide now
	SettledUntil, ArmedUntil time.Time // by this node's clock; zero: never granted, or dropped

	Renewed time.Time // when the table took the last renewal; zero: none
	Server  string    // run id of the server that took it; empty: no Redis
	Why     string    // why it didn't grant all; empty: it did
	Err     error     // of the last renewal; nil: it was taken

	Locks []LocalLock // of this node alone

	Renewals, RenewalsFailed uint64 // since the start
	Checks, ChecksFailed     uint64 // questions to the table, each for all that waited
}

// Status describes the keeper now.
func (k *Keeper) Status() KeeperStatus {
	k.mu.Lock()
	s := k.status
	s.Locks = sortedLocks(k.locks)
	k.mu.Unlock()
	g, right := k.grant.Load(), k.Right(time.Time{})
	s.Node, s.Instance = k.o.Node, k.instance
	s.Settled, s.Armed, s.SettledUntil, s.ArmedUntil = right.Settled, right.Armed, g.settled, g.armed
	s.RenewalsFailed, s.ChecksFailed = k.counts.renewalsFailed.Load(), k.counts.checksFailed.Load()
	s.Renewals, s.Checks = k.counts.renewals.Load(), k.counts.checks.Load() // each is counted before it can fail
	return s
}

// note keeps what became of a renewal, and logs it when it is something new.
func (k *Keeper) note(r *table.Renewed, err error) {
	k.mu.Lock()
	was := k.status
	k.status.Err, k.status.Why = err, ""
	if r != nil {
		k.status.Renewed, k.status.Server = k.o.Now(), r.Server
		if !r.Settled || !r.Armed {
			k.status.Why = r.Why
		}
	}
	now := k.status
	k.mu.Unlock()
	switch {
	case err != nil && (was.Err == nil || was.Err.Error() != err.Error()):
		k.o.Logger.Warn("lease is not renewed", "node", k.o.Node, "error", err)
	case err == nil && now.Why != "" && now.Why != was.Why:
		k.o.Logger.Warn("lease is not granted whole", "node", k.o.Node, "reason", now.Why)
	case err == nil && now.Why == "" && (was.Err != nil || was.Why != ""):
		k.o.Logger.Info("lease is renewed", "node", k.o.Node)
	}
	if r != nil && was.Server != "" && was.Server != r.Server {
		k.o.Logger.Warn("another server serves the table", "node", k.o.Node, "server", r.Server, "former", was.Server)
	}
}

// Troubles says what is wrong with this node's right to decide, by alarm, and what to do.
func (k *Keeper) Troubles() map[string]string {
	s := k.Status()
	texts := make(map[string]string)
	for _, l := range s.Locks {
		texts["local-lock/"+string(l.Agency)] = fmt.Sprintf("Agency %s is locked on this node only, by %s: %s. It is locked for all nodes as soon as the table can be reached.", l.Agency, l.Who, l.Reason)
	}
	if k.Draining() && s.Err == nil {
		texts["node-draining"] = fmt.Sprintf("Node %s is out for maintenance: it takes no new mail and no new logins. mailcutover node drain %[1]s --end lets it work again.", s.Node)
		return texts
	}
	switch {
	case s.Err == nil:
	case errors.Is(s.Err, table.ErrEvicted):
		texts["node-evicted"] = fmt.Sprintf("Node %s was evicted, or attested dead: it decides nothing, all mail and logins are put off. If it is to serve again, restart it: it then joins as a new instance. %s", s.Node, s.Err)
	case errors.Is(s.Err, table.ErrInstance):
		texts["node-instance"] = fmt.Sprintf("Another instance has the name of node %s: this one decides nothing. If that one runs, give one of them another name. If it is gone for good, attest that it is off, or evict it; where its clock is declared to go on while the machine is stopped, waiting for its fence is enough. %s", s.Node, s.Err)
	case errors.Is(s.Err, table.ErrIncarnation):
		texts["node-incarnation"] = fmt.Sprintf("The table that node %s knows is gone, and another has its place: restore it, or move the directory %q away. %s", s.Node, "replica", s.Err)
	case errors.Is(s.Err, errLag):
		texts["node-behind"] = fmt.Sprintf("Node %s doesn't follow the table, so it doesn't renew its lease either: look at its disk, and at what else its log says. %s", s.Node, s.Err)
	case errors.Is(s.Err, table.ErrRejoining):
		texts["node-rejoin"] = fmt.Sprintf("Node %s knows nothing of the table yet and can't join while the others rejoin: start the others. %s", s.Node, s.Err)
	}
	if strings.Contains(s.Why, table.OnAnotherDisk) {
		texts["node-rejoin"] = fmt.Sprintf("Node %s may not decide for all agencies: %s. What was on the old disk may be more than the table has: hold the agencies against the audit log and against what was told as done, lock or reconcile what differs, and end it: mailcutover table end-rejoin --reason ...", s.Node, s.Why)
	} else if s.Why != "" {
		texts["node-rejoin"] = fmt.Sprintf("Node %s may not decide for all agencies: %s. Start the nodes that are missing, or evict or attest those that are gone.", s.Node, s.Why)
	}
	if len(texts) == len(s.Locks) && !s.Settled {
		reason := "it was not renewed yet"
		if s.Err != nil {
			reason = s.Err.Error()
		}
		texts["node-lease"] = fmt.Sprintf("Node %s has no lease: all mail and logins are put off. %s", s.Node, reason)
	} else if len(texts) == len(s.Locks) && !s.Armed {
		reason := "it was not renewed in time"
		if s.Err != nil {
			reason = s.Err.Error()
		}
		texts["node-lease-armed"] = fmt.Sprintf("Node %s has no lease for armed agencies: their mail and logins are put off. %s", s.Node, reason)
	}
	return texts
}
