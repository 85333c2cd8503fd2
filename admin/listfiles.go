package admin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/desk"
	"mailcutover/identity/list"
	"mailcutover/identity/register"
	"mailcutover/identity/report"
	"mailcutover/routing"
)

// GeneratedList is a list as a file.
type GeneratedList struct {
	ID   string `json:"id"`
	Rows int    `json:"rows"`
	CSV  string `json:"csv"`
}

// GeneratedLists are the lists of an agency.
type GeneratedLists struct {
	Agency string          `json:"agency"`
	Read   time.Time       `json:"read" doc:"When the directory was read"`
	Lists  []GeneratedList `json:"lists"`

	Recorded    int      `json:"recorded" doc:"Mailboxes as lists in force have them"`
	Added       int      `json:"added" doc:"Mailboxes that no list in force names"`
	Differences []string `json:"differences,omitempty" doc:"What the directory says otherwise than lists in force, which was accepted"`
}

// NewLists says of which mailboxes lists are made.
type NewLists struct {
	Agency        string `json:"agency" minLength:"1" maxLength:"63"`
	Refresh       bool   `json:"refresh,omitempty" doc:"Read the directories first"`
	AcceptChanges bool   `json:"accept_changes,omitempty" doc:"Where the directory says otherwise than lists in force, take its word; who approves the lists reads it again"`
}

// CheckedList is what was found of a list.
type CheckedList struct {
	List         string    `json:"list,omitempty" doc:"Id that the file names"`
	Agency       string    `json:"agency"`
	Clean        bool      `json:"clean" doc:"It may be proposed"`
	Mailboxes    int       `json:"mailboxes"`
	Right        int       `json:"right"`
	Warnings     int       `json:"warnings"`
	Wrong        int       `json:"wrong"`
	Crossed      int       `json:"crossed" doc:"Mailboxes that would get another one's mail"`
	Permutations []string  `json:"permutations,omitempty" doc:"How rows were mixed"`
	Problems     []Detail  `json:"problems,omitempty" doc:"What is wrong with the file itself"`
	Read         time.Time `json:"read" doc:"When the directory was read"`
	Report       string    `json:"report,omitempty" doc:"In the format that was asked for"`
	Rows         []ListRow `json:"rows,omitempty" doc:"Only if they were asked for"`
}

// ListUpload is a call with a list; its body is the file.
type ListUpload struct {
	Agency  string `query:"agency" required:"true" maxLength:"63"`
	Source  string `query:"source" maxLength:"255" doc:"Name of the file, for people"`
	Refresh bool   `query:"refresh" doc:"Read the directories first"`
	RawBody []byte `contentType:"application/octet-stream"`
}

func (in *ListUpload) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.Agency)}
}

type generateCall struct {
	Body NewLists
}

func (in *generateCall) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.Body.Agency)}
}

func (s *Server) generate(ctx context.Context, in *NewLists) (*reply[GeneratedLists], error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	id := routing.AgencyID(in.Agency)
	if _, ok := s.Replica.State().Agency(id); !ok {
		return nil, noAgency(string(id))
	}
	d, err := s.desk(ctx, in.Refresh)
	if err != nil {
		return nil, err
	}
	made, err := d.Generate(id, callerOf(ctx).person, in.AcceptChanges)
	if errors.Is(err, desk.ErrDiffers) {
		return nil, differs(err, made)
	}
	if err != nil {
		if wrong := deskProblem(err); wrong != err {
			return nil, wrong
		}
		return nil, problem(http.StatusConflict, "correct that in the directory, and read it again: mailcutover directory check", "%s", err)
	}
	out := &reply[GeneratedLists]{Body: GeneratedLists{Agency: string(id), Read: d.Status().Source.Facts.At, Lists: []GeneratedList{}, Recorded: made.Recorded, Added: made.Added}}
	for i := range made.Differences {
		out.Body.Differences = append(out.Body.Differences, desk.SayDifference(&made.Differences[i]))
	}
	for _, l := range made.Lists {
		var b bytes.Buffer
		if err := l.Write(&b); err != nil {
			return nil, err
		}
		out.Body.Lists = append(out.Body.Lists, GeneratedList{ID: l.ID, Rows: len(l.Rows), CSV: b.String()})
	}
	return out, nil
}

// differs is the answer where the directory contradicts the lists in force.
func differs(err error, made *desk.Generated) error {
	p := problem(http.StatusConflict, "look at each of them, in the directory and with who knows; what is right there is taken with --accept-changes, and read again by who approves the lists", "%s", err)
	const most = 1000
	for i := range made.Differences {
		if i == most {
			p.Errors = append(p.Errors, Detail{Message: fmt.Sprintf("and %d more", len(made.Differences)-most)})
			break
		}
		p.Errors = append(p.Errors, Detail{Where: string(made.Differences[i].Change), Message: desk.SayDifference(&made.Differences[i])})
	}
	return p
}

// fileName is a file's name without its folders.
func fileName(s string) string {
	if s == "" {
		return ""
	}
	return filepath.Base(strings.ReplaceAll(s, `\`, "/"))
}

// check reads a list and compares it. The error may be one of the desk's, for deskProblem.
func (s *Server) check(ctx context.Context, in *ListUpload) (*desk.Checked, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	id := routing.AgencyID(in.Agency)
	if _, ok := s.Replica.State().Agency(id); !ok {
		return nil, noAgency(in.Agency)
	}
	if len(in.RawBody) > list.MaxBytes {
		return nil, tooLarge(list.MaxBytes)
	}
	d, err := s.desk(ctx, in.Refresh)
	if err != nil {
		return nil, err
	}
	return d.Check(in.RawBody, id, list.NewID(id, s.nextNumber(id)), fileName(in.Source))
}

func (s *Server) nextNumber(id routing.AgencyID) int {
	next := 1
	entries, _ := register.Lists(s.Replica.State(), id)
	for i := range entries {
		next = max(next, entries[i].List.Number+1)
	}
	return next
}

func checkedView(c *desk.Checked, agency string, l report.Language) CheckedList {
	v := CheckedList{Agency: agency, Clean: c.Clean()}
	if c.List != nil {
		v.Mailboxes = len(c.List.Rows)
		if !c.List.Foreign {
			v.List = c.List.ID
		}
	}
	if r := c.Result; r != nil {
		v.Right, v.Warnings, v.Wrong, v.Crossed, v.Read = r.Right, r.Warnings, r.Wrong, r.Crossed(), r.At
		v.Permutations = report.Permutations(r, l, c.List.Headers)
	}
	v.Problems = problemsOf(c, l)
	return v
}

// problemsOf lists what is wrong with a file.
func problemsOf(c *desk.Checked, l report.Language) []Detail {
	if c.Problems == nil {
		return nil
	}
	var out []Detail
	for _, p := range c.Problems.List {
		d := Detail{Message: l.Pick(p.Text, p.German)}
		if p.Line > 0 {
			d.Where = fmt.Sprintf(l.Pick("line %d", "Zeile %d"), p.Line)
		}
		out = append(out, d)
	}
	if more := c.Problems.Total - len(c.Problems.List); more > 0 {
		out = append(out, Detail{Message: fmt.Sprintf(l.Pick("and %d more", "und %d weitere"), more)})
	}
	return out
}

// render makes the report. That of a file without rows says what is wrong with the file.
func render(c *desk.Checked, agency, format string, o report.Options) (string, error) {
	if format == "none" {
		return "", nil
	}
	r := c.Result
	if r == nil {
		r = &check.Result{Agency: routing.AgencyID(agency)}
	}
	if c.List != nil {
		o.Headers = c.List.Headers
	}
	o.Problems = c.Problems
	var b strings.Builder
	var err error
	switch format {
	case "html":
		err = report.HTML(&b, r, o)
	case "csv":
		err = report.CSV(&b, r, o)
	case "json":
		err = report.JSON(&b, r, o)
	default:
		err = report.Text(&b, r, o)
	}
	return b.String(), err
}

// refusedList is the answer to a list that isn't clean.
func refusedList(c *desk.Checked) error {
	p := problem(http.StatusBadRequest, "nothing was stored; mailcutover list check FILE shows the whole report", "list refused")
	p.Errors = problemsOf(c, report.English)
	if r := c.Result; r != nil {
		p.Detail = fmt.Sprintf("list refused: %d of %d rows are wrong; %d mailboxes would get another one's mail", r.Wrong, len(r.Rows), r.Crossed())
		for _, text := range report.Permutations(r, report.English, c.List.Headers) {
			p.Errors = append(p.Errors, Detail{Message: text})
		}
		const most = 1000
		for _, text := range report.Rows(r, check.Wrong, report.English, most-len(p.Errors)) {
			p.Errors = append(p.Errors, Detail{Message: text})
		}
	}
	return p
}

// Generate makes lists of an agency's mailboxes.
func (c *Client) Generate(ctx context.Context, of NewLists) (GeneratedLists, error) {
	return post[GeneratedLists](ctx, c, listsPath+"/generate", of)
}

// ListFile is a list to be sent to a node.
type ListFile struct {
	Agency  string
	Name    string // of the file
	Content []byte
	Refresh bool // let the directories be read first
}

func (f *ListFile) query() url.Values {
	q := url.Values{"agency": {f.Agency}, "source": {f.Name}}
	if f.Refresh {
		q.Set("refresh", "true")
	}
	return q
}

// ReportFormat says how a list's report looks.
type ReportFormat struct {
	Format   string // none, text, html, csv or json; empty: none
	Language string // en or de; empty: en
	Color    bool
	All      bool // all rows that aren't right
	Rows     bool // the rows of the list in the answer
}

// CheckList compares a list with everything.
func (c *Client) CheckList(ctx context.Context, f ListFile, r ReportFormat) (CheckedList, error) {
	ctx, cancel := context.WithTimeout(ctx, listReadTimeout+listTimeout)
	defer cancel()
	q := f.query()
	q.Set("format", cmp.Or(r.Format, "none"))
	q.Set("language", cmp.Or(r.Language, "en"))
	for name, set := range map[string]bool{"color": r.Color, "all": r.All, "rows": r.Rows} {
		if set {
			q.Set(name, "true")
		}
	}
	return decode[CheckedList](c.send(ctx, http.MethodPost, checkListPath, q, fileType, bytes.NewReader(f.Content)))
}
