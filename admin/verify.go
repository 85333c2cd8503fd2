package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/audit"
	"mailcutover/rollback/verify"
	"mailcutover/rollback/verify/desk"
	"mailcutover/routing"
)

const verifyPath = "/v1/verify"

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
