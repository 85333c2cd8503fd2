package daemon

import (
	"fmt"
	"strings"
	"sync"

	"mailcutover/routing"
)

// Alarms about names. Each is in the list as long as its reason is there.
const (
	conflictAlarm   = "names-claimed-twice"
	namesLostAlarm  = "names-lost"
	postmasterAlarm = "no-postmaster"
)

// mostConflicts is how many names an alarm tells of, one by one.
const mostConflicts = 10

// names is what was said last about names that go nowhere.
type names struct {
	mu       sync.Mutex
	conflict string // text of the alarm; empty: none
	master   string
	lost     string
}

// watchNames raises an alarm when a State is the first that has a name which two claim,
// or that has mailboxes and none for <postmaster>; it clears the alarm when that is gone.
func (d *Daemon) watchNames(s *routing.State) {
	d.names.mu.Lock()
	defer d.names.mu.Unlock()
	say := func(key string, was *string, text string) {
		switch {
		case text == *was:
		case text == "":
			d.alarms.Clear(key)
		default:
			d.alarms.Raise(key, text)
		}
		*was = text
	}
	say(conflictAlarm, &d.names.conflict, conflicts(s))
	lost := ""
	if s.NamesLost() {
		lost = "The table lost names that nodes have seen: mailboxes, fixed addresses or domains. Until people have looked, unknown names are answered 451 everywhere, not 550. Import again what was imported after the backup, or lost in the failover; then: mailcutover table names-complete --reason ..."
	}
	say(namesLostAlarm, &d.names.lost, lost)
	master := ""
	if a := d.postmaster(); a != "" && s.Mailboxes() > 0 {
		switch why := s.DecideAddress(a, d.config.Load().Routing.Separator); why.Reason {
		case routing.ReasonNoSuchName, routing.ReasonForeign:
			master = fmt.Sprintf("Mail to <postmaster> is put off: %s (routing.postmaster) has neither a mailbox nor a fixed address in the table (%s).", a, why.Reason)
		}
	}
	say(postmasterAlarm, &d.names.master, master)
}

// conflicts says which names two have, and who; empty if there is none.
func conflicts(s *routing.State) string {
	list, total := s.Conflicts(mostConflicts)
	if total == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("Claimed by two, so that nobody gets mail or logs in under it: ")
	for i, name := range list {
		if i > 0 {
			b.WriteString("; ")
		}
		var who []string
		for _, c := range s.Claims(name) {
			who = append(who, c.String())
		}
		fmt.Fprintf(&b, "%s: %s", name, strings.Join(who, ", and "))
	}
	if total > len(list) {
		fmt.Fprintf(&b, "; and %d more", total-len(list))
	}
	return b.String() + ". Take it from one: mailcutover mailbox release."
}

// postmaster returns the configured address in canonical form; empty if there is none.
func (d *Daemon) postmaster() routing.Address {
	a, _ := postmaster(d.config.Load()) // checked when it was loaded
	return a
}
