package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/mailboxlist"
	"mailcutover/routing"
	"mailcutover/routing/table"
)

// Imported says what a list changed.
type Imported struct {
	DryRun   bool             `json:"dry_run" doc:"Nothing was stored"`
	Revision uint64           `json:"revision" doc:"Of the table that has it"`
	Agencies []ImportedAgency `json:"agencies"`
	Fixed    ImportedFixed    `json:"fixed"`
}

// ImportedAgency says what a list changed for one agency.
type ImportedAgency struct {
	Agency    string `json:"agency"`
	Added     int    `json:"added" doc:"Mailboxes"`
	Extended  int    `json:"extended" doc:"Known mailboxes that got more names"`
	Unchanged int    `json:"unchanged" doc:"Rows that say what was known"`
	Mailboxes int    `json:"mailboxes" doc:"The agency has now"`
	Mapping   string `json:"mapping" doc:"Digest of the mapping in force"`
}

// ImportedFixed says what a list changed among the fixed addresses.
type ImportedFixed struct {
	Added     int `json:"added"`
	Unchanged int `json:"unchanged"`
}

func (s *Server) registerImport(api huma.API) {
	handle(s, api, huma.Operation{
		OperationID: "import-mailboxes", Method: http.MethodPost, Path: importPath, Tags: []string{"mailboxes"},
		Summary: "Add the mailboxes and fixed addresses of a list",
		Description: "CSV in UTF-8 with comma or semicolon; all columns are required: " + strings.Join(mailboxlist.Columns(), ", ") +
			". kind is user, shared or room, or for a fixed address group, folder, contact, application or scanner, with its home in platform. " +
			"The list is stored as a whole or refused as a whole. It only adds: what would change an answer that is given now is refused, see remap-mailboxes.",
	}, func(ctx context.Context, in *struct {
		Mutation
		Reason  string `query:"reason" required:"true" maxLength:"1000"`
		DryRun  bool   `query:"dry_run" doc:"Only check"`
		RawBody []byte `contentType:"text/csv"`
	}) (*reply[Imported], error) {
		reason, err := checkReason(in.Reason)
		if err != nil {
			return nil, err
		}
		return s.importList(ctx, in.RawBody, reason, in.DryRun)
	})
}

func (s *Server) importList(ctx context.Context, text []byte, reason string, dryRun bool) (*reply[Imported], error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	if err := s.mayImport(); err != nil {
		return nil, err
	}
	list, err := mailboxlist.Read(text)
	if err != nil {
		return nil, refused(err, false)
	}
	platforms := s.platformIDs()
	var plan *mailboxlist.Plan
	state, err := s.change(ctx, func(state *routing.State) (c table.Change, mappings []*routing.Mapping, err error) {
		if plan, err = list.Plan(state, platforms, s.Separator); err != nil {
			_, other := list.Remap(state, platforms, s.Separator)
			return c, nil, refused(err, other == nil)
		}
		if dryRun || !plan.Changed() {
			return c, nil, nil
		}
		c = table.Change{Mapped: state.Position().Mapped, Fixed: plan.Fixed, Reason: reason, What: fmt.Sprintf("import %d mailboxes and %d fixed addresses", len(list.Mailboxes), len(list.Fixed))}
		for _, a := range plan.Agencies {
			if a.Changed() {
				c.Agencies = append(c.Agencies, a.Record)
				mappings = append(mappings, a.Mapping)
			}
		}
		return c, mappings, nil
	})
	if err != nil {
		return nil, err
	}
	out := &reply[Imported]{Body: Imported{
		DryRun: dryRun, Revision: uint64(state.Position().Revision), Agencies: []ImportedAgency{},
		Fixed: ImportedFixed{Added: len(plan.Fixed), Unchanged: plan.FixedUnchanged},
	}}
	for _, a := range plan.Agencies {
		out.Body.Agencies = append(out.Body.Agencies, ImportedAgency{
			Agency: string(a.Record.ID), Added: a.Added, Extended: a.Extended, Unchanged: a.Unchanged,
			Mailboxes: a.Mapping.Len(), Mapping: a.Mapping.Digest().String(),
		})
	}
	return out, nil
}

// mayImport refuses what puts mailboxes into the table that no directory vouches for.
func (s *Server) mayImport() error {
	if s.Imports {
		return nil
	}
	return problem(http.StatusForbidden, "mailcutover list generate, and list import", "mailboxes are imported from a file only in a lab; elsewhere an approved list brings them")
}

func (s *Server) platformIDs() (ids []routing.PlatformID) {
	for _, p := range s.Platforms() {
		ids = append(ids, routing.PlatformID(p.ID))
	}
	return ids
}

// refused makes a Problem of what is wrong with a list. remap says that it could be
// brought into force all the same, as a switch.
func refused(err error, remap bool) error {
	wrong, ok := errors.AsType[*mailboxlist.Problems](err)
	if !ok {
		return err
	}
	hint := "nothing was stored; correct the rows and import the whole list again"
	if remap {
		hint += "; if it is right and shall change answers, propose that: mailcutover mailbox import --remap"
	}
	if wrong.Header {
		hint = "nothing was stored; the first line must name these columns, in any order: " + strings.Join(mailboxlist.Columns(), ",")
	}
	p := problem(http.StatusBadRequest, hint, "list refused: %d wrong", wrong.Total)
	for _, one := range wrong.List {
		d := Detail{Message: one.Text}
		if one.Line > 0 {
			d.Where = fmt.Sprintf("line %d", one.Line)
		}
		p.Errors = append(p.Errors, d)
	}
	if more := wrong.Total - len(wrong.List); more > 0 {
		p.Errors = append(p.Errors, Detail{Message: fmt.Sprintf("and %d more", more)})
	}
	return p
}
