package demo

import (
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"

	"mailcutover/mailboxlist"
	"mailcutover/routing"
)

// The three agencies of the incident: 790 mailboxes.
var agencies = []struct {
	id        string
	domain    string
	mailboxes int
}{
	{"health", "health.example", 320},
	{"police", "police.example", 260},
	{"tax", "tax.example", 210},
}

// moved is the agency that the demo cuts over and rolls back.
const moved = "police"

// mailbox is one mailbox and how either platform knows it.
type mailbox struct {
	agency  string
	id      routing.MailboxID
	address string            // what the world writes to
	at      map[string]string // by platform
}

// people invents the mailboxes; the same ones each time.
func people() []mailbox {
	first := strings.Fields("anna bert carla david elif franz greta hasan ines jonas klara lena max nora otto paula rosa samir tara uwe")
	last := strings.Fields("abel berg conrad demir ernst frank gross haas ivanov jung koch lang maier neumann ott peters roth stein thoma vogel")
	random := rand.New(rand.NewPCG(790, 15))
	var all []mailbox
	for _, a := range agencies {
		for i := range a.mailboxes {
			m := mailbox{agency: a.id}
			binary.BigEndian.PutUint64(m.id[:8], random.Uint64())
			binary.BigEndian.PutUint64(m.id[8:], random.Uint64())
			m.address = fmt.Sprintf("%s.%s@%s", first[i%len(first)], last[i/len(first)%len(last)], a.domain)
			m.at = map[string]string{
				source: m.address,
				target: fmt.Sprintf("%s@ox.%s", m.id, a.domain),
			}
			all = append(all, m)
		}
	}
	return all
}

// writeList writes the mailboxes as a list for `mailbox import`. With sorted, the column
// of the target's addresses is sorted on its own, as in the incident.
func writeList(w io.Writer, all []mailbox, sorted bool) error {
	targets := make([]string, len(all))
	for i, m := range all {
		targets[i] = m.at[target]
	}
	if sorted {
		slices.Sort(targets)
	}
	pairs := make([]pairing, len(all))
	for i := range all {
		pairs[i] = pairing{address: all[i].address, agency: all[i].agency, id: all[i].id, target: targets[i]}
	}
	return writePairs(w, pairs)
}

// pairing is a row of a list for `mailbox import`: whose address goes to which mailbox.
type pairing struct {
	address, agency string
	id              routing.MailboxID
	target          string
}

// writePairs writes a list for `mailbox import`.
func writePairs(w io.Writer, pairs []pairing) error {
	out := csv.NewWriter(w)
	columns := mailboxlist.Columns()
	rows := [][]string{columns}
	for _, p := range pairs {
		cells := map[string]string{"address": p.address, "directory_id": p.id.String(), "agency": p.agency, "kind": "user", "target_address": p.target, "target_login": p.target}
		row := make([]string, len(columns))
		for c, name := range columns {
			row[c] = cells[name]
		}
		rows = append(rows, row)
	}
	return out.WriteAll(rows)
}
