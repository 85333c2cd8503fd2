package desk

import (
	"mailcutover/rollback/verify"
	"mailcutover/routing"
)

// names says whose an address is, by one state of the table.
type names struct{ s *routing.State }

var _ verify.Names = names{}

// Whose implements verify.Names.
func (n names) Whose(text string) (id routing.MailboxID, agency routing.AgencyID, many bool) {
	a, err := routing.ParseAddress(text)
	if err != nil {
		return id, "", false
	}
	claims := n.s.Claims(string(a))
	if len(claims) == 0 {
		_, served := n.s.Domain(a.Domain())
		return id, "", served
	}
	if c := claims[0]; len(claims) == 1 && c.Agency != "" {
		return c.Mailbox, c.Agency, false
	}
	return id, "", true // a fixed address, or one that two claim
}

// Primary implements verify.Names.
func (n names) Primary(agency routing.AgencyID, id routing.MailboxID) routing.Address {
	m := n.s.Mapping(agency)
	if m == nil {
		return ""
	}
	row, ok := m.Mailbox(id)
	if !ok || len(row.Addresses) == 0 {
		return ""
	}
	return row.Addresses[0]
}
