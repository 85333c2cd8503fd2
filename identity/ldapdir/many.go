package ldapdir

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// manyIDs is how many objects one search asks for: far below what a server gives without
// paging, and a filter that is far from too long.
const manyIDs = 100

// FindIDs asks the directory now for the objects with these ids, in no order; those that it
// doesn't have are missing. An error means that nothing is known, also of those before it.
func (c *Client) FindIDs(ctx context.Context, ids []routing.MailboxID) ([]directory.Object, error) {
	objects := make([]directory.Object, 0, len(ids))
	for part := range slices.Chunk(ids, manyIDs) {
		terms := make([]string, len(part))
		for i, id := range part {
			term, err := c.filter(&directory.Query{ID: id})
			if err != nil {
				return nil, fmt.Errorf("ask directory %s: %w", c.o.Name, err)
			}
			terms[i] = term
		}
		request := c.request(c.o.Base, ldap.ScopeWholeSubtree, "(|"+strings.Join(terms, "")+")")
		err := c.on(ctx, asking, func(conn *connection) error {
			found, err := c.findAll(ctx, conn, request)
			objects = append(objects, found...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// ShowsForwards reports whether objects say where their platform forwards mail: an attribute for
// that is known.
func (c *Client) ShowsForwards() bool { return c.o.Map.ShowsForwards() }

// ShowsForwards reports whether there is an attribute for that.
func (m *Map) ShowsForwards() bool {
	return m.Target != "" || m.Forward != "" || len(m.Forwards) > 0
}
