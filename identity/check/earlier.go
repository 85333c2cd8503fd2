package check

import (
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// pairs are the addresses and ids of earlier lists; the newest list that has one counts.
type pairs struct {
	ids       map[routing.Address]pair
	addresses map[routing.MailboxID]pair
}

type pair struct {
	address routing.Address
	id      routing.MailboxID
	list    string
}

func pairsOf(lists []*list.List) *pairs {
	p := &pairs{ids: make(map[routing.Address]pair), addresses: make(map[routing.MailboxID]pair)}
	for _, l := range lists {
		for i := range l.Rows {
			r := &l.Rows[i]
			if r.Address == "" {
				continue // a list of accounts has no pairs of an address and an id
			}
			one := pair{address: r.Address, id: r.ID, list: l.ID}
			if _, newer := p.ids[r.Address]; !newer {
				p.ids[r.Address] = one
			}
			if _, newer := p.addresses[r.ID]; !newer {
				p.addresses[r.ID] = one
			}
		}
	}
	return p
}

// compare returns what an earlier list says against a row.
func (p *pairs) compare(row *list.Row) (Finding, bool) {
	if row.Address == "" {
		return Finding{}, false
	}
	if was, ok := p.ids[row.Address]; ok && was.id != row.ID {
		return Finding{Code: CodeEarlier, Source: was.list, Owner: was.id}, true
	}
	if was, ok := p.addresses[row.ID]; ok && was.address != row.Address {
		return Finding{Code: CodeEarlier, Source: was.list, Address: was.address}, true
	}
	return Finding{}, false
}
