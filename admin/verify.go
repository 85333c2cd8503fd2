package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/rollback/verify"
	"mailcutover/rollback/verify/desk"
	"mailcutover/routing"
)

const verifyPath = "/v1/verify"

// Verifications say how agencies' mailboxes stand.
type Verifications struct {
	Agencies []Verification `json:"agencies" doc:"In order of their ids"`
}

// Verification says how one agency's mailboxes stand.
type Verification struct {
	Agency  string               `json:"agency"`
	Running *VerificationRunning `json:"running,omitempty" doc:"Absent: nothing is being compared"`
	Last    *VerificationOutcome `json:"last,omitempty" doc:"The last comparison that came to its end; absent: there was none"`
	Full    *VerificationOutcome `json:"full,omitempty" doc:"The last one of all mailboxes"`
	Open    VerificationTally    `json:"open" doc:"Findings that nobody has seen to yet"`
	Left    int                  `json:"left,omitempty" doc:"Findings that were too many to be kept"`
	Trouble string               `json:"trouble,omitempty" doc:"Why the last attempt did not come to its end"`
	Tried   *time.Time           `json:"tried,omitempty" doc:"When that was"`
	Refuses []string             `json:"refuses" doc:"Why the way back can't be finalised, as far as mailboxes go"`
}

// VerificationRunning is a comparison under way.
type VerificationRunning struct {
	Run       string    `json:"run"`
	Node      string    `json:"node"`
	Mode      string    `json:"mode" enum:"sample,full,again" doc:"again: mailboxes with findings that were said to be removed"`
	Cause     string    `json:"cause"`
	Person    string    `json:"person"`
	Reason    string    `json:"reason"`
	Began     time.Time `json:"began"`
	Mailboxes int       `json:"mailboxes" doc:"To compare, of all agencies of the run; told twice a minute"`
	Done      int       `json:"done"`
	Messages  int64     `json:"messages" doc:"Looked at, on both sides"`
}

// VerificationOutcome is what came of a comparison.
type VerificationOutcome struct {
	Run       string         `json:"run"`
	Node      string         `json:"node" doc:"Has the numbers of each mailbox"`
	Mode      string         `json:"mode" enum:"sample,full,again"`
	Cause     string         `json:"cause"`
	Person    string         `json:"person"`
	Ended     time.Time      `json:"ended"`
	Seconds   float64        `json:"seconds"`
	Mailboxes int            `json:"mailboxes" doc:"Of the agency"`
	Compared  int            `json:"compared"`
	Failed    int            `json:"failed" doc:"That could not be read"`
	Differ    int            `json:"differ" doc:"Of which something besides new mail differs"`
	Counts    verify.Counts  `json:"counts"`
	Found     map[string]int `json:"found" doc:"Findings by kind"`
	Notes     []string       `json:"notes"`
}

// VerificationTally counts open findings.
type VerificationTally desk.Tally

// Findings are a list of them.
type Findings struct {
	Findings []Finding `json:"findings" doc:"The open ones first, the worst before others"`
}

// Finding is something about a mailbox that people have to look at.
type Finding struct {
	ID           string     `json:"id"`
	Kind         string     `json:"kind" enum:"crossed,possible,foreign,missing,clash" doc:"crossed: content of the owner lies in the mailbox; possible: perhaps; foreign: much of it never was the mailbox's, and the owner isn't known; missing: much isn't there that should be; clash: UIDs that name other messages"`
	State        string     `json:"state" enum:"found,removed,confirmed,dismissed"`
	Agency       string     `json:"agency"`
	Mailbox      string     `json:"mailbox" doc:"Directory id of the mailbox in which it lies"`
	Address      string     `json:"address" doc:"Its address"`
	Owner        string     `json:"owner,omitempty" doc:"Directory id of whose it likely is"`
	OwnerAgency  string     `json:"owner_agency,omitempty"`
	OwnerAddress string     `json:"owner_address,omitempty"`
	Messages     int        `json:"messages" doc:"That lie in the mailbox and stand with the owner"`
	Sure         int        `json:"sure" doc:"Of them, that name the owner and not the mailbox"`
	Late         int        `json:"late,omitempty" doc:"Of them, that came after the watermark: perhaps by its user"`
	Of           int        `json:"of" doc:"Messages that the mailbox holds"`
	Folders      []string   `json:"folders,omitempty" doc:"Where most of them lie. Users name folders: it is told to operators"`
	First        time.Time  `json:"first"`
	Seen         time.Time  `json:"seen"`
	Run          string     `json:"run" doc:"That saw it last, or confirmed that it is gone"`
	Person       string     `json:"person,omitempty" doc:"Who said the last word"`
	Reason       string     `json:"reason,omitempty"`
	Time         *time.Time `json:"time,omitempty" doc:"Of the last word, or of the confirmation"`
	Again        int        `json:"again,omitempty" doc:"How often it was found again after it was said to be removed"`
}

// FindingMessages are the messages that a finding is about.
type FindingMessages struct {
	Messages []verify.Message `json:"messages"`
	More     bool             `json:"more" doc:"There are more than are told"`
}

// MailboxComparisons are the numbers of mailboxes.
type MailboxComparisons struct {
	Run       string              `json:"run"`
	Mailboxes []verify.Comparison `json:"mailboxes"`
	More      bool                `json:"more" doc:"There are more than are told"`
}

// NewVerification asks for a comparison.
type NewVerification struct {
	Agencies []string `json:"agencies,omitempty" maxItems:"1000" doc:"Compared together: content of one is found in another"`
	All      bool     `json:"all,omitempty" doc:"All agencies instead"`
	Full     bool     `json:"full,omitempty" doc:"All mailboxes instead of a sample"`
	Sample   int      `json:"sample,omitempty" minimum:"1" doc:"Mailboxes of each agency; left out: as configured"`
	Reason   string   `json:"reason" minLength:"1" maxLength:"1000"`
}

// VerificationBegun is a comparison that was begun.
type VerificationBegun struct {
	Run      string   `json:"run"`
	Node     string   `json:"node"`
	Agencies []string `json:"agencies"`
}

// FindingMark is what somebody says about findings.
type FindingMark struct {
	Findings []string `json:"findings,omitempty" maxItems:"10000" doc:"Ids"`
	Agency   string   `json:"agency,omitempty" maxLength:"63" doc:"All findings of this agency that are in state found, instead of ids"`
	State    string   `json:"state" enum:"found,removed,dismissed" doc:"removed: it was put right, and is looked at again; dismissed: it is as it should be; found: opens it again"`
	Reason   string   `json:"reason" minLength:"1" maxLength:"1000"`
}

type verifyOrder struct {
	Mutation
	Body NewVerification
}

func (in *verifyOrder) scope() []routing.AgencyID {
	var ids []routing.AgencyID
	for _, id := range in.Body.Agencies {
		ids = append(ids, routing.AgencyID(id))
	}
	return ids
}

type verifyStop struct {
	Mutation
	Body struct {
		Agency string `json:"agency" minLength:"1" maxLength:"63"`
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (in *verifyStop) scope() []routing.AgencyID {
	return []routing.AgencyID{routing.AgencyID(in.Body.Agency)}
}

type verifyMark struct {
	Mutation
	Body FindingMark
}

func (*verifyMark) looksItself() {}

type findingMessages struct {
	ID string `path:"id" maxLength:"40"`
}

func (*findingMessages) looksItself() {}

// mostDetails is how many messages, or mailboxes, one answer has.
const mostDetails = 20_000

func (s *Server) registerVerify(api huma.API) {
	tags := []string{"verify"}
	handle(s, api, huma.Operation{
		OperationID: "list-verifications", Method: http.MethodGet, Path: verifyPath, Tags: tags, Summary: "How agencies' mailboxes stand: what is being compared, and what was found",
	}, func(_ context.Context, in *struct {
		Agency string `query:"agency" maxLength:"63"`
	}) (*reply[Verifications], error) {
		v, err := s.verifications(in.Agency)
		return &reply[Verifications]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "begin-verify", Method: http.MethodPost, Path: verifyPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Compare mailboxes of both platforms, by this node", Description: "Nothing on either platform is changed. A sample is compared by itself after each cutover.",
	}, func(ctx context.Context, in *verifyOrder) (*reply[VerificationBegun], error) {
		v, err := s.beginVerify(ctx, &in.Body)
		return &reply[VerificationBegun]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "stop-verify", Method: http.MethodPost, Path: verifyPath + "/stop", Tags: tags, Summary: "Stop a comparison that runs on this node",
	}, func(ctx context.Context, in *verifyStop) (*reply[Verifications], error) {
		v, err := s.stopVerify(ctx, in.Body.Agency, in.Body.Reason)
		return &reply[Verifications]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-findings", Method: http.MethodGet, Path: verifyPath + "/findings", Tags: tags, Summary: "What comparing mailboxes found, with its state",
	}, func(ctx context.Context, in *struct {
		Agency string `query:"agency" maxLength:"63"`
		State  string `query:"state" enum:"found,removed,confirmed,dismissed,open" doc:"open: found or removed"`
		Kind   string `query:"kind" enum:"crossed,possible,foreign,missing,clash"`
	}) (*reply[Findings], error) {
		all, err := s.findings(ctx, in.Agency, in.State, in.Kind)
		return &reply[Findings]{Body: Findings{all}}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "mark-findings", Method: http.MethodPost, Path: verifyPath + "/findings/mark", Tags: tags,
		Summary: "Say that findings are put right, or as they should be", Description: "What is said to be removed is looked at again: a finding is confirmed by the program only.",
	}, func(ctx context.Context, in *verifyMark) (*reply[Findings], error) {
		all, err := s.markFindings(ctx, &in.Body)
		return &reply[Findings]{Body: Findings{all}}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-finding-messages", Method: http.MethodGet, Path: verifyPath + "/findings/{id}/messages", Tags: tags,
		Summary: "The messages that a finding is about: folder and UID on the target", Description: "They lie on the node that ran the comparison; another says which.",
	}, func(ctx context.Context, in *findingMessages) (*reply[FindingMessages], error) {
		v, err := s.findingMessages(ctx, in.ID)
		return &reply[FindingMessages]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "list-comparisons", Method: http.MethodGet, Path: verifyPath + "/mailboxes", Tags: tags,
		Summary: "The numbers of each mailbox, by the last comparison of an agency", Description: "They lie on the node that ran it; another says which.",
	}, func(ctx context.Context, in *struct {
		Agency  string `query:"agency" required:"true" maxLength:"63"`
		Differ  bool   `query:"differ" doc:"Only mailboxes of which something besides new mail differs, or that could not be read"`
		Address string `query:"address" maxLength:"320" doc:"Only the mailbox with this primary address"`
	}) (*reply[MailboxComparisons], error) {
		v, err := s.comparisons(ctx, in.Agency, in.Differ, in.Address)
		return &reply[MailboxComparisons]{Body: v}, err
	})
}

// verifyDesk returns who compares mailboxes; an error: nobody does.
func (s *Server) verifyDesk() (*desk.Desk, error) {
	if s.Verify == nil {
		return nil, problem(http.StatusServiceUnavailable, "see docs/operations/verify.md", "this node compares no mailboxes")
	}
	return s.Verify, nil
}

// verifyProblem says what to do about errors of a desk.
func verifyProblem(err error) error {
	for _, known := range []struct {
		err    error
		status int
		hint   string
	}{
		{desk.ErrUnreadable, http.StatusConflict, "set platforms.mailboxes for both platforms: docs/operations/verify.md"},
		{desk.ErrRunning, http.StatusConflict, "see mailcutover verify status"},
		{desk.ErrNoAgency, http.StatusNotFound, "see mailcutover agency list"},
		{desk.ErrNoFinding, http.StatusNotFound, "see mailcutover verify findings"},
	} {
		if errors.Is(err, known.err) {
			return problem(known.status, known.hint, "%s", err.Error())
		}
	}
	return err
}

func (s *Server) verifications(agency string) (Verifications, error) {
	state := s.Replica.State()
	v := Verifications{Agencies: []Verification{}}
	for _, a := range state.Agencies() {
		if agency != "" && agency != string(a.ID) {
			continue
		}
		r, err := desk.RecordOf(state, a.ID)
		if err != nil {
			return v, problem(http.StatusConflict, "use the program's version that wrote it", "%s", err.Error())
		}
		found, err := desk.Findings(state, a.ID)
		if err != nil {
			return v, problem(http.StatusConflict, "use the program's version that wrote it", "%s", err.Error())
		}
		v.Agencies = append(v.Agencies, s.verificationView(&r, found))
	}
	if agency != "" && len(v.Agencies) == 0 {
		return v, noAgency(agency)
	}
	slices.SortFunc(v.Agencies, func(a, b Verification) int { return cmp.Compare(a.Agency, b.Agency) })
	return v, nil
}

func (s *Server) verificationView(r *desk.Record, found []desk.Tracked) Verification {
	v := Verification{
		Agency: string(r.Agency), Last: outcomeView(r.Last), Full: outcomeView(r.Full), Open: VerificationTally(desk.Count(found)), Left: r.Left, Refuses: []string{},
	}
	if s.Verify != nil {
		v.Refuses = append(v.Refuses, s.Verify.Open(r.Agency)...)
	}
	if t := r.Trouble; t != nil {
		v.Trouble, v.Tried = t.Error, &t.Time
	}
	if at := r.Running; at != nil {
		v.Running = &VerificationRunning{
			Run: at.Run, Node: string(at.Node), Mode: string(at.Mode), Cause: string(at.Cause), Person: at.Who, Reason: at.Reason, Began: at.Began,
			Mailboxes: at.Progress.Mailboxes, Done: at.Progress.Done, Messages: at.Progress.Messages,
		}
		if s.Verify != nil {
			if p, ok := s.Verify.Progress(at.Run); ok {
				v.Running.Mailboxes, v.Running.Done, v.Running.Messages = p.Mailboxes, p.Done, p.Messages
			}
		}
	}
	return v
}

func outcomeView(o *desk.Outcome) *VerificationOutcome {
	if o == nil {
		return nil
	}
	v := &VerificationOutcome{
		Run: o.Run, Node: string(o.Node), Mode: string(o.Mode), Cause: string(o.Cause), Person: o.Who, Ended: o.Ended, Seconds: o.Ended.Sub(o.Began).Seconds(),
		Mailboxes: o.Mailboxes, Compared: o.Compared, Failed: o.Failed, Differ: o.Differ, Counts: o.Counts, Found: o.Found, Notes: append([]string{}, o.Notes...),
	}
	if v.Found == nil {
		v.Found = map[string]int{}
	}
	return v
}

func (s *Server) beginVerify(ctx context.Context, in *NewVerification) (v VerificationBegun, err error) {
	k, err := s.verifyDesk()
	if err != nil {
		return v, err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return v, err
	}
	o := desk.Order{Mode: desk.Sample, Sample: in.Sample, Who: callerOf(ctx).person, Reason: reason}
	if in.Full {
		o.Mode = desk.Full
	}
	switch {
	case in.All == (len(in.Agencies) > 0):
		return v, problem(http.StatusBadRequest, "name agencies, or say all", "compare mailboxes: which agencies?")
	case in.Full && in.Sample > 0:
		return v, problem(http.StatusBadRequest, "a full comparison has no sample", "compare mailboxes: all, or a sample of %d?", in.Sample)
	case in.All:
		if err := s.within(ctx, nil); err != nil {
			return v, err
		}
		state := s.Replica.State()
		for _, a := range state.Agencies() {
			if m := state.Mapping(a.ID); m != nil && m.Len() > 0 {
				o.Agencies = append(o.Agencies, a.ID)
			}
		}
	default:
		for _, id := range in.Agencies {
			if _, ok := s.Replica.State().Agency(routing.AgencyID(id)); !ok {
				return v, noAgency(id)
			}
			o.Agencies = append(o.Agencies, routing.AgencyID(id))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := s.record(ctx, audit.Entry{Subject: clip("mailboxes of " + strings.Join(texts(o.Agencies), ", ")), Reason: reason}); err != nil {
		return v, err
	}
	run, err := k.Begin(ctx, o)
	return VerificationBegun{Run: run, Node: s.Node, Agencies: texts(o.Agencies)}, verifyProblem(err)
}

func (s *Server) stopVerify(ctx context.Context, agency, reason string) (v Verifications, err error) {
	k, err := s.verifyDesk()
	if err != nil {
		return v, err
	}
	if reason, err = checkReason(reason); err != nil {
		return v, err
	}
	if err := s.record(ctx, audit.Entry{Subject: "comparison of agency " + agency, Reason: reason}); err != nil {
		return v, err
	}
	if !k.Stop(routing.AgencyID(agency)) {
		return v, problem(http.StatusConflict, "say it to the node that compares: mailcutover verify status", "no comparison of agency %s runs on node %s", agency, s.Node)
	}
	return s.verifications(agency)
}

func (s *Server) findings(ctx context.Context, agency, state, kind string) ([]Finding, error) {
	out := []Finding{}
	now := s.Replica.State()
	known, who := agency == "", callerOf(ctx)
	for _, a := range now.Agencies() {
		if agency != "" && agency != string(a.ID) {
			continue
		}
		known = true
		all, err := desk.Findings(now, a.ID)
		if err != nil {
			return nil, problem(http.StatusConflict, "use the program's version that wrote it", "%s", err.Error())
		}
		for i := range all {
			t := &all[i]
			if (state == "" || state == string(t.State) || state == "open" && t.State.Open()) && (kind == "" || kind == string(t.Kind)) {
				out = append(out, findingView(t, who.has(mayOperate)))
			}
		}
	}
	if !known {
		return nil, noAgency(agency)
	}
	return out, nil
}

func findingView(t *desk.Tracked, operates bool) Finding {
	v := Finding{
		ID: t.ID, Kind: string(t.Kind), State: string(t.State), Agency: string(t.Agency), Mailbox: t.Mailbox.String(), Address: string(t.Address),
		Messages: t.Messages, Sure: t.Sure, Late: t.Late, Of: t.Of, First: t.First, Seen: t.Seen, Run: t.Run, Person: t.Who, Reason: t.Reason, Again: t.Again,
	}
	if !t.Owner.IsZero() {
		v.Owner, v.OwnerAgency, v.OwnerAddress = t.Owner.String(), string(t.OwnerAgency), string(t.OwnerAddress)
	}
	if operates {
		v.Folders = t.Folders
	}
	if !t.Time.IsZero() {
		v.Time = &t.Time
	}
	return v
}

func (s *Server) markFindings(ctx context.Context, in *FindingMark) ([]Finding, error) {
	k, err := s.verifyDesk()
	if err != nil {
		return nil, err
	}
	reason, err := checkReason(in.Reason)
	if err != nil {
		return nil, err
	}
	if (len(in.Findings) > 0) == (in.Agency != "") {
		return nil, problem(http.StatusBadRequest, "name findings, or an agency", "mark findings: which?")
	}
	ids := make(map[string]bool)
	for _, id := range in.Findings {
		ids[id] = true
	}
	var marks []desk.Mark
	var agencies []routing.AgencyID
	state := s.Replica.State()
	for _, a := range state.Agencies() {
		all, err := desk.Findings(state, a.ID)
		if err != nil {
			return nil, problem(http.StatusConflict, "use the program's version that wrote it", "%s", err.Error())
		}
		for i := range all {
			t := &all[i]
			if ids[t.ID] || in.Agency == string(a.ID) && t.State == desk.Found {
				delete(ids, t.ID)
				marks = append(marks, desk.Mark{Finding: t.ID, State: desk.State(in.State), Who: callerOf(ctx).person, Reason: reason})
				agencies = append(agencies, a.ID)
			}
		}
	}
	for id := range ids {
		return nil, notFound("see mailcutover verify findings", "no finding %q", id)
	}
	if len(marks) == 0 {
		return nil, notFound("see mailcutover verify findings", "agency %s has no finding in state found", in.Agency)
	}
	if err := s.within(ctx, agencies); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var named []string
	for _, m := range marks {
		named = append(named, m.Finding)
	}
	if err := s.record(ctx, audit.Entry{Subject: "findings " + listed(named), Reason: reason, After: in.State}); err != nil {
		return nil, err
	}
	out := []Finding{}
	all, err := k.Mark(ctx, marks)
	for i := range all {
		out = append(out, findingView(&all[i], true))
	}
	return out, verifyProblem(err)
}

func (s *Server) findingMessages(ctx context.Context, id string) (v FindingMessages, err error) {
	k, err := s.verifyDesk()
	if err != nil {
		return v, err
	}
	state := s.Replica.State()
	for _, a := range state.Agencies() {
		all, err := desk.Findings(state, a.ID)
		if err != nil {
			return v, err
		}
		i := slices.IndexFunc(all, func(t desk.Tracked) bool { return t.ID == id })
		if i < 0 {
			continue
		}
		if err := s.within(ctx, []routing.AgencyID{a.ID}); err != nil {
			return v, err
		}
		v.Messages = []verify.Message{}
		err = k.Messages(&all[i], func(m *verify.Message) bool {
			v.More = len(v.Messages) == mostDetails
			if !v.More {
				v.Messages = append(v.Messages, *m)
			}
			return !v.More
		})
		slices.SortFunc(v.Messages, func(a, b verify.Message) int {
			return cmp.Or(cmp.Compare(a.Folder, b.Folder), cmp.Compare(a.UID, b.UID))
		})
		return v, s.elsewhere(err, state, a.ID, all[i].Run)
	}
	return v, notFound("see mailcutover verify findings", "no finding %q", id)
}

func (s *Server) comparisons(ctx context.Context, agency string, differ bool, address string) (v MailboxComparisons, err error) {
	k, err := s.verifyDesk()
	if err != nil {
		return v, err
	}
	state := s.Replica.State()
	r, err := desk.RecordOf(state, routing.AgencyID(agency))
	if err != nil {
		return v, err
	}
	if r.Last == nil {
		return v, notFound("mailcutover verify --agency "+agency, "no comparison of agency %q has come to its end", agency)
	}
	v = MailboxComparisons{Run: r.Last.Run, Mailboxes: []verify.Comparison{}}
	who := callerOf(ctx)
	operates := who.has(mayOperate)
	err = k.Comparisons(r.Last.Run, r.Agency, func(c *verify.Comparison) bool {
		if differ && c.Error == "" && c.Counts.Same() || address != "" && !strings.EqualFold(address, string(c.Address)) {
			return true
		}
		if !operates {
			c.Folders = nil // users name folders
		}
		v.More = len(v.Mailboxes) == mostDetails
		if !v.More {
			v.Mailboxes = append(v.Mailboxes, *c)
		}
		return !v.More
	})
	return v, s.elsewhere(err, state, r.Agency, r.Last.Run)
}

// elsewhere says on which node details lie that aren't here.
func (s *Server) elsewhere(err error, state *routing.State, agency routing.AgencyID, run string) error {
	if !errors.Is(err, desk.ErrNotHere) {
		return err
	}
	r, _ := desk.RecordOf(state, agency)
	for _, o := range []*desk.Outcome{r.Last, r.Full} {
		if o != nil && o.Run == run && string(o.Node) != s.Node {
			return notFound("ask that node: --api; see mailcutover node list for its address", "the details of comparison %s lie on node %s", run, o.Node)
		}
	}
	return notFound("compare again: mailcutover verify --agency "+string(agency)+" --full", "the details of comparison %s are not on node %s", run, s.Node)
}
