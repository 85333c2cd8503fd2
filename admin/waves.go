package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"mailcutover/approval"
	"mailcutover/plan"
	plandesk "mailcutover/plan/desk"
	"mailcutover/routing"
)

const wavesPath, stopPath, timetablePath = "/v1/waves", "/v1/plan-stop", "/v1/timetable"

// NewWave proposes a wave.
type NewWave struct {
	Name       string         `json:"name" minLength:"1" maxLength:"63"`
	Definition WaveDefinition `json:"definition"`
	Reason     string         `json:"reason" minLength:"1" maxLength:"1000"`
	DryRun     bool           `json:"dry_run,omitempty" doc:"Only say what it would be"`
}

// WaveName names a wave.
type WaveName struct {
	Name string `path:"name" maxLength:"63"`
}

// proposeWave concerns the agencies that it names; the other calls look at the wave's.
type proposeWave struct {
	Mutation
	Body NewWave
}

func (in *proposeWave) scope() (ids []routing.AgencyID) {
	for _, id := range in.Body.Definition.Agencies {
		ids = append(ids, routing.AgencyID(id))
	}
	return ids
}

func (WaveName) looksItself() {}

type startWave struct {
	Mutation
	WaveName
}

type reasonedWave struct {
	Mutation
	WaveName
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

type resumeWave struct {
	Mutation
	WaveName
	Body struct {
		Retry  []string  `json:"retry,omitempty" maxItems:"60" doc:"Agencies whose operation was aborted, and that are tried again"`
		Said   time.Time `json:"said,omitzero" doc:"Time of what is said of the wave, as it was looked at: if it was paused for something else since, it stays so. Absent: it isn't compared"`
		Reason string    `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

type skipWave struct {
	Mutation
	WaveName
	Body struct {
		Agency string `json:"agency" minLength:"1" maxLength:"63"`
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

type answerWave struct {
	Mutation
	WaveName
	Body struct {
		Item string `json:"item" minLength:"1" maxLength:"63"`
		OK   bool   `json:"ok"`
		Note string `json:"note,omitempty" maxLength:"300"`
	}
}

// stopPlan concerns all agencies.
type stopPlan struct {
	Mutation
	Body struct {
		Reason string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

type liftPlan struct {
	Mutation
	Body struct {
		Revision uint64 `json:"revision,omitempty" doc:"Of the stop that was looked at: if something was found since, nothing is lifted. Absent: it isn't compared"`
		Reason   string `json:"reason" minLength:"1" maxLength:"1000"`
	}
}

func (s *Server) registerWaves(api huma.API) {
	tags := []string{"waves"}
	handle(s, api, huma.Operation{
		OperationID: "list-waves", Method: http.MethodGet, Path: wavesPath, Tags: tags, Summary: "All waves, and whether the plan is stopped",
	}, func(context.Context, *struct{}) (*reply[Waves], error) {
		return &reply[Waves]{Body: s.waves()}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "show-wave", Method: http.MethodGet, Path: wavesPath + "/{name}", Tags: tags, Summary: "One wave, with the checklist of its next agency and all that keeps that from starting now",
	}, func(_ context.Context, in *WaveName) (*reply[Wave], error) {
		v, err := s.wave(in.Name)
		return &reply[Wave]{Body: v}, err
	})
	handle(s, api, huma.Operation{
		OperationID: "show-timetable", Method: http.MethodGet, Path: timetablePath, Tags: tags, Summary: "When agencies are likely to be cut over, on what that rests, and what would refuse it now",
	}, func(context.Context, *struct{}) (*reply[Timetable], error) {
		d, err := s.waveDesk()
		if err != nil {
			return nil, err
		}
		p, _ := d.Plan()
		stop, _ := plan.StopOf(p.Facts.State) // one that can't be read refuses each agency
		return &reply[Timetable]{Body: timetableView(p, stop)}, nil
	})
	handle(s, api, huma.Operation{
		OperationID: "propose-wave", Method: http.MethodPost, Path: wavesPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Propose a wave",
		Description: "Others approve it. It is bound to the definition and to the epoch of each agency. An approved wave that was started covers the cutover of each of its agencies, once, within its " +
			"windows, while its checklist holds and nothing has happened to the agency since. It covers no rollback.",
	}, func(ctx context.Context, in *proposeWave) (*reply[Proposal], error) {
		return s.proposeWave(ctx, &in.Body)
	})
	handle(s, api, huma.Operation{
		OperationID: "start-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/start", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Start a wave that was approved", Description: "From then on nodes start its agencies by themselves, when their time has come.",
	}, func(ctx context.Context, in *startWave) (*startedProposal, error) {
		w, err := plan.Find(s.Replica.State(), plan.Name(in.Name))
		if err != nil {
			return nil, err
		}
		return s.startProposal(ctx, w.Proposal)
	})
	handle(s, api, huma.Operation{
		OperationID: "pause-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/pause", Tags: tags,
		Summary: "Keep a wave's next agencies from starting", Description: "What is under way goes on.",
	}, func(ctx context.Context, in *reasonedWave) (*reply[Wave], error) {
		return s.changeWave(ctx, in.Name, "pause", in.Body.Reason, func(w plan.Wave, by plan.Word) (plan.Wave, error) { return w.Pause(by) })
	})
	handle(s, api, huma.Operation{
		OperationID: "resume-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/resume", Tags: tags,
		Summary: "Let a paused wave go on", Description: "An agency whose operation was aborted is tried again only if it is named, and if nothing else has happened to it.",
	}, func(ctx context.Context, in *resumeWave) (*reply[Wave], error) {
		what := "resume"
		if len(in.Body.Retry) > 0 {
			what = "try " + strings.Join(in.Body.Retry, ", ") + " again and resume"
		}
		return s.changeWave(ctx, in.Name, what, in.Body.Reason, func(w plan.Wave, by plan.Word) (plan.Wave, error) {
			if seen := in.Body.Said; !seen.IsZero() && !seen.Equal(w.Said.Time) {
				return w, problem(http.StatusConflict, "see mailcutover wave show", "resume wave %s: it is %s for something else since it was looked at: %s", w.Name, w.Standing, w.Said.Reason)
			}
			var retry []routing.AgencyID
			for _, id := range in.Body.Retry {
				retry = append(retry, routing.AgencyID(id))
			}
			return w.Resume(by, retry)
		})
	})
	handle(s, api, huma.Operation{
		OperationID: "skip-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/skip", Tags: tags,
		Summary: "Take an agency out of a wave's order", Description: "It is cut over by a proposal of its own, or by another wave.",
	}, func(ctx context.Context, in *skipWave) (*reply[Wave], error) {
		return s.changeWave(ctx, in.Name, "skip an agency of", in.Body.Reason, func(w plan.Wave, by plan.Word) (plan.Wave, error) {
			return w.Skip(by, routing.AgencyID(in.Body.Agency))
		})
	})
	handle(s, api, huma.Operation{
		OperationID: "end-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/end", Tags: tags,
		Summary: "End a wave for good", Description: "What is under way goes on. The wave can be proposed again.",
	}, func(ctx context.Context, in *reasonedWave) (*reply[Wave], error) {
		return s.changeWave(ctx, in.Name, "end", in.Body.Reason, func(w plan.Wave, by plan.Word) (plan.Wave, error) { return w.End(by) })
	})
	handle(s, api, huma.Operation{
		OperationID: "answer-wave", Method: http.MethodPost, Path: wavesPath + "/{name}/answers", Tags: tags,
		Summary: "Answer a question of a wave's checklist", Description: "The answer has the caller's name, and counts for as long as the wave, or the node's settings, say.",
	}, func(ctx context.Context, in *answerWave) (*reply[Wave], error) {
		said := "no"
		if in.Body.OK {
			said = "yes"
		}
		reason := in.Body.Item + ": " + said + ", " + in.Body.Note
		return s.changeWave(ctx, in.Name, "answer for", reason, func(w plan.Wave, by plan.Word) (plan.Wave, error) {
			return w.Answer(plan.Answer{Item: in.Body.Item, OK: in.Body.OK, Person: by.Person, Time: by.Time, Note: in.Body.Note})
		})
	})
	handle(s, api, huma.Operation{
		OperationID: "stop-plan", Method: http.MethodPost, Path: stopPath, Tags: tags,
		Summary: "Stop the plan", Description: "No wave starts another agency, and no cutover of an agency of a wave begins, until a releaser lifts that. Rollbacks go on.",
	}, func(ctx context.Context, in *stopPlan) (*reply[Waves], error) {
		return s.stopPlan(ctx, in.Body.Reason)
	})
	handle(s, api, huma.Operation{
		OperationID: "lift-plan", Method: http.MethodPost, Path: stopPath + "/lift", Tags: tags,
		Summary: "Lift the stop", Description: "What it rested on doesn't stop the plan again; anything new does.",
	}, func(ctx context.Context, in *liftPlan) (*reply[Waves], error) {
		return s.liftPlan(ctx, routing.Revision(in.Body.Revision), in.Body.Reason)
	})
}

// waveDesk returns this node's part in the plan.
func (s *Server) waveDesk() (*plandesk.Desk, error) {
	if s.Plan == nil {
		return nil, problem(http.StatusServiceUnavailable, "see docs/operations/plan.md", "this node looks after no waves")
	}
	return s.Plan, nil
}

// waves lists them all, from this node's copy of the table.
func (s *Server) waves() Waves {
	state := s.Replica.State()
	all, unreadable := plan.Waves(state)
	v := Waves{Waves: []Wave{}}
	for i := range all {
		one := waveView(&all[i])
		one.Approval = s.approvalOf(state, &all[i])
		v.Waves = append(v.Waves, one)
	}
	stop, err := plan.StopOf(state)
	if err != nil {
		unreadable = append(unreadable, err)
	}
	v.Stop = stopView(stop)
	for _, err := range unreadable {
		v.Unreadable = append(v.Unreadable, err.Error())
	}
	return v
}

// approvalOf is how far the proposal of a wave is that was not started; empty: it was.
func (s *Server) approvalOf(state *routing.State, w *plan.Wave) string {
	if w.Standing != plan.Proposed {
		return ""
	}
	p, ok, err := approval.Find(state, w.Proposal)
	if err != nil || !ok {
		return string(approval.Void)
	}
	return standing(state, &p, s.needed()).State
}

func (s *Server) wave(name string) (v Wave, err error) {
	state := s.Replica.State()
	w, err := plan.Find(state, plan.Name(name))
	if err != nil {
		return v, err
	}
	v = waveView(&w)
	v.Approval = s.approvalOf(state, &w)
	d, err := s.waveDesk()
	if err != nil {
		return v, nil // the rest isn't known here
	}
	p, _ := d.Plan()
	i := slices.IndexFunc(p.Waves, func(o plan.Wave) bool { return o.Name == w.Name })
	if i < 0 || w.Standing.Over() {
		return v, nil
	}
	id, obstacles := p.Obstacles(&p.Waves[i], true)
	v.Next, v.Obstacles = string(id), []WaveObstacle{}
	for _, o := range obstacles {
		v.Obstacles = append(v.Obstacles, WaveObstacle{o.Name, o.Text, timeView(o.Until)})
	}
	if id != "" {
		v.Checks = checkViews(plan.GoNoGo(&p.Waves[i], id, p.Settings, p.Facts, p.Now))
	}
	return v, nil
}

// planErrors are those of the plan, with what to do.
var planErrors = []struct {
	err    error
	status int
	hint   string
}{
	{plan.ErrNoWave, http.StatusNotFound, "see mailcutover wave list"},
	{plan.ErrState, http.StatusConflict, "see mailcutover wave show"},
	{plan.ErrAgency, http.StatusConflict, "see mailcutover wave show"},
	{plan.ErrRetries, http.StatusConflict, "see why: mailcutover operation show; then propose it alone, or leave it out: mailcutover wave skip"},
	{plan.ErrItem, http.StatusNotFound, "see mailcutover wave show"},
	{plan.ErrStopped, http.StatusConflict, "look at why: mailcutover wave list; a releaser lifts it: mailcutover wave lift"},
	{plan.ErrNotStopped, http.StatusConflict, "see mailcutover wave list"},
	{plan.ErrUnreadable, http.StatusConflict, "it was made by another version of the program: use that one"},
}

// planProblem is the answer to an error of the plan; nil: it is none of those.
func planProblem(err error) *Problem {
	for _, k := range planErrors {
		if errors.Is(err, k.err) {
			return problem(k.status, k.hint, "%s", err.Error())
		}
	}
	return nil
}
