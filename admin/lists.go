package admin

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/identity/desk"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/identity/report"
	"mailcutover/routing"
)

// BatchList is a list of mailboxes that was proposed or approved.
type BatchList struct {
	ID        string    `json:"id"`
	Agency    string    `json:"agency"`
	Number    int       `json:"number"`
	Mailboxes int       `json:"mailboxes"`
	Standing  string    `json:"standing" enum:"proposed,approved,pending,active,superseded,withdrawn,void" doc:"pending: an operation is bringing it into force; void: its proposal can't be used any more"`
	Since     time.Time `json:"since"`
	Made      time.Time `json:"made"`
	By        string    `json:"by" doc:"Who made or brought it"`
	Source    string    `json:"source,omitempty" doc:"Name of the file, of a list from elsewhere"`
	Digest    string    `json:"digest"`
	Check     string    `json:"check" doc:"Digest of what its check found"`
	Checked   time.Time `json:"checked" doc:"When the directory was read for it"`
	Proposal  string    `json:"proposal"`
	Approved  []string  `json:"approved,omitempty" doc:"Persons, once it is active"`
	Operation string    `json:"operation,omitempty" doc:"That brings, or brought, it into force; absent if it only added"`
	Rows      []ListRow `json:"rows,omitempty" doc:"Only of one list"`
}

// ListRow is a row of a list.
type ListRow struct {
	Address string `json:"address,omitempty"`
	ID      string `json:"directory_id"`
	Account string `json:"account,omitempty"`
}

// BatchLists are lists, the newest first.
type BatchLists struct {
	Lists      []BatchList `json:"lists"`
	Unreadable []string    `json:"unreadable,omitempty" doc:"Not as they were stored: they count for nothing, and keep the agency from being cut over"`
}

const (
	listsPath     = "/v1/lists"
	checkListPath = listsPath + "/check"
	fileType      = "application/octet-stream"
)

// ListID names a list.
type ListID struct {
	ID string `path:"id" maxLength:"100"`
}

func (ListID) looksItself() {}

func (s *Server) registerLists(api huma.API) {
	tags := []string{"lists"}
	handle(s, api, huma.Operation{
		OperationID: "list-lists", Method: http.MethodGet, Path: listsPath, Summary: "Lists that were proposed or approved, the newest first", Tags: tags,
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" maxLength:"63"`
	}) (*reply[BatchLists], error) {
		return &reply[BatchLists]{Body: s.lists(routing.AgencyID(in.Agency))}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-list", Method: http.MethodGet, Path: listsPath + "/{id}", Summary: "One list, with its rows", Tags: tags,
	}, func(_ context.Context, in *ListID) (*reply[BatchList], error) {
		e, err := s.list(in.ID)
		if err != nil {
			return nil, err
		}
		v := s.listView(s.Replica.State(), &e)
		v.Rows = rowsView(e.List)
		return &reply[BatchList]{Body: v}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "generate-lists", Method: http.MethodPost, Path: listsPath + "/generate", Tags: tags,
		Summary: "Make lists of an agency's mailboxes",
		Description: "What lists in force name is taken from them; mailboxes that none names come from the directory. Where the two contradict each other, nothing is made (409), unless accept_changes is said. " +
			"Nothing is stored. Each row has a keyed digest; the files come back by import-list.",
	}, func(ctx context.Context, in *generateCall) (*reply[GeneratedLists], error) {
		return s.generate(ctx, &in.Body)
	})
	handle(s, api, huma.Operation{
		OperationID: "check-list", Method: http.MethodPost, Path: checkListPath, Tags: tags,
		Summary:     "Compare a list with the directories, the table and earlier lists",
		Description: "CSV or XLSX. Nothing is stored. Whatever is wrong with the list, the answer is 200 and says it.",
	}, func(ctx context.Context, in *struct {
		ListUpload
		Format   string `query:"format" enum:"none,text,html,csv,json" default:"none" doc:"Of the report"`
		Language string `query:"language" enum:"en,de" default:"en"`
		Color    bool   `query:"color" doc:"A text with terminal colours"`
		All      bool   `query:"all" doc:"A report with all rows that are not right, and not only the first 50"`
		Rows     bool   `query:"rows" doc:"With the rows of the list"`
	}) (*reply[CheckedList], error) {
		language := report.Language(in.Language)
		c, err := s.check(ctx, &in.ListUpload)
		if file, ok := errors.AsType[*list.FileError](err); ok && language == report.German {
			return nil, problem(http.StatusBadRequest, "gebraucht wird CSV oder XLSX mit einer Kopfzeile", "keine Liste: %s", file.German)
		}
		if err != nil {
			return nil, deskProblem(err)
		}
		out := checkedView(c, in.Agency, language)
		if in.Rows && c.List != nil {
			out.Rows = rowsView(c.List)
		}
		o := report.Options{Language: language, Color: in.Color, Source: fileName(in.Source)}
		if in.All {
			o.Rows = -1
		}
		out.Report, err = render(c, in.Agency, in.Format, o)
		return &reply[CheckedList]{Body: out}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "import-list", Method: http.MethodPost, Path: listsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Propose a list",
		Description: "CSV or XLSX. A list that isn't clean is refused as a whole, with every row. What is proposed is bound to the list and to what its check found; it is void when one of them " +
			"has changed. Others approve it, saying the number of mailboxes or the agency; then it is started.",
	}, func(ctx context.Context, in *struct {
		Mutation
		ListUpload
		Reason string `query:"reason" required:"true" maxLength:"1000"`
	}) (*reply[Proposal], error) {
		return s.importBatch(ctx, &in.ListUpload, in.Reason)
	})
	handle(s, api, huma.Operation{
		OperationID: "withdraw-list", Method: http.MethodPost, Path: listsPath + "/{id}/withdraw", Tags: tags,
		Summary:     "Take a list back",
		Description: "Of a list that is only proposed, its proposer withdraws the proposal. A list in force counts no more: what is routed stays, and the agency can't be cut over until another list names its mailboxes.",
	}, func(ctx context.Context, in *struct {
		Mutation
		ListID
		Body struct {
			Reason string `json:"reason" minLength:"1" maxLength:"1000"`
		}
	}) (*reply[BatchList], error) {
		return s.withdrawList(ctx, in.ID, in.Body.Reason)
	})
}

// desk returns who knows the directories, and has them read first if that is wanted.
func (s *Server) desk(ctx context.Context, refresh bool) (*desk.Desk, error) {
	d := s.Desk()
	if d == nil {
		return nil, problem(http.StatusConflict, "set identity in the configuration", "no directories are configured on this node")
	}
	if refresh {
		if err := d.Refresh(ctx); err != nil {
			return nil, problem(http.StatusServiceUnavailable, "see mailcutover directory show", "%s", err)
		}
	}
	return d, nil
}

// deskProblem says what keeps the desk from answering.
func deskProblem(err error) error {
	switch {
	case errors.Is(err, desk.ErrStale):
		return problem(http.StatusConflict, "mailcutover directory check reads them now", "%s", err)
	case errors.Is(err, desk.ErrNotModelled):
		return problem(http.StatusBadRequest, "see identity.agencies in the configuration", "%s", err)
	case errors.Is(err, desk.ErrIncomplete):
		return problem(http.StatusConflict, "see mailcutover directory show", "%s", err)
	case errors.Is(err, list.ErrFile):
		return problem(http.StatusBadRequest, "bring CSV or XLSX, with a header line", "%s", err)
	}
	return err
}

func rowsView(l *list.List) []ListRow {
	out := make([]ListRow, len(l.Rows))
	for i := range l.Rows {
		out[i] = ListRow{Address: string(l.Rows[i].Address), ID: l.Rows[i].ID.String(), Account: l.Rows[i].Account}
	}
	return out
}

// list returns the entry of a list.
func (s *Server) list(id string) (register.Entry, error) {
	e, ok, err := register.Find(s.Replica.State(), id)
	if err == nil && !ok {
		err = notFound("see mailcutover list list", "no list %q in the table", id)
	}
	return e, err
}

func (s *Server) lists(id routing.AgencyID) BatchLists {
	state := s.Replica.State()
	entries, unreadable := register.Lists(state, id)
	out := BatchLists{Lists: []BatchList{}}
	for i := range entries {
		v := s.listView(state, &entries[i])
		if register.Superseded(entries, &entries[i]) {
			v.Standing = "superseded"
		}
		out.Lists = append(out.Lists, v)
	}
	for _, err := range unreadable {
		out.Unreadable = append(out.Unreadable, err.Error())
	}
	return out
}

func (s *Server) listView(state *routing.State, e *register.Entry) BatchList {
	l := e.List
	v := BatchList{
		ID: l.ID, Agency: string(l.Agency), Number: l.Number, Mailboxes: len(l.Rows), Standing: string(e.Standing), Since: e.Since,
		Made: l.Made, By: l.By, Source: l.Source, Digest: l.Digest().String(), Check: e.Check.String(), Checked: e.Checked,
		Proposal: e.Proposal, Approved: e.Approved, Operation: string(e.Operation),
	}
	switch e.Standing {
	case register.Proposed:
		v.Standing = s.proposedStanding(state, e)
	case register.Pending:
		if _, runs := state.Operation(e.Operation); !runs {
			v.Standing = "void" // the table lost it
		}
	}
	return v
}

// proposedStanding says how far a list's proposal is.
func (s *Server) proposedStanding(state *routing.State, e *register.Entry) string {
	p, ok, err := approval.Find(state, e.Proposal)
	if err != nil || !ok {
		return "void"
	}
	switch standing(state, &p, s.needed()).State {
	case string(approval.Open):
		return string(register.Proposed)
	case string(approval.Approved):
		return string(register.Approved)
	}
	return "void"
}

// Lists returns the lists of an agency; an empty agency means all.
func (c *Client) Lists(ctx context.Context, agency string) (BatchLists, error) {
	q := url.Values{}
	if agency != "" {
		q.Set("agency", agency)
	}
	return get[BatchLists](ctx, c, listsPath, q)
}

// List returns one list with its rows.
func (c *Client) List(ctx context.Context, id string) (BatchList, error) {
	return get[BatchList](ctx, c, listsPath+"/"+url.PathEscape(id), nil)
}

// ImportList proposes a list.
func (c *Client) ImportList(ctx context.Context, f ListFile, reason string) (Proposal, error) {
	ctx, cancel := context.WithTimeout(ctx, listReadTimeout+listTimeout)
	defer cancel()
	q := f.query()
	q.Set("reason", reason)
	return decode[Proposal](c.send(ctx, http.MethodPost, listsPath, q, fileType, bytes.NewReader(f.Content)))
}

// WithdrawList takes a list back.
func (c *Client) WithdrawList(ctx context.Context, id, reason string) (BatchList, error) {
	return post[BatchList](ctx, c, listsPath+"/"+url.PathEscape(id)+"/withdraw", map[string]string{"reason": reason})
}
