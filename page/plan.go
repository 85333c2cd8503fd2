package page

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mailcutover/admin"
)

// plan is all waves, what stops them, and when each agency is likely to move.
var plan = view{name: "plan", data: planData, parts: []string{"stop", "waves", "timetable"}}

type planView struct {
	admin.Waves
	Rows    []timetableRow
	May     bool // stop it
	MayLift bool
	Missing []string
}

// timetableRow is one agency, with the times as its wave's people read them.
type timetableRow struct {
	admin.TimetableRow
	First bool // of its wave
}

func planData(v *visit) (string, any, error) {
	all, err := v.api.Waves(v.ctx())
	if err != nil {
		return "", nil, err
	}
	out := planView{Waves: all, May: operator(&v.id, v), MayLift: has(&v.id, admin.RoleReleaser, v.page.Lab)}
	table, err := v.page.timetables.of(v.ctx(), "", func() (admin.Timetable, error) { return v.api.Timetable(v.ctx()) })
	wave := ""
	for _, r := range gather(&out.Missing, table, err).Rows {
		out.Rows = append(out.Rows, timetableRow{r, r.Wave != wave})
		wave = r.Wave
	}
	return "Plan", &out, nil
}

// wave is one of them.
var wave = view{name: "wave", data: waveData, parts: []string{"standing", "agencies", "checks"}}

type waveView struct {
	admin.Wave
	May bool // pause, resume, end and answer
}

func waveData(v *visit) (string, any, error) {
	w, err := v.api.Wave(v.ctx(), v.r.PathValue("name"))
	if err != nil {
		return "", nil, err
	}
	return w.Name, &waveView{Wave: w, May: operator(&v.id, v)}, nil
}

// Open reports whether something can still be done with the wave.
func (w *waveView) Open() bool { return w.State == "running" || w.State == "paused" }

// Questions are what people have to answer of the checklist.
func (w *waveView) Questions() (all []question) {
	texts := map[string]string{"backup": ""}
	order := []string{"backup"}
	for _, it := range w.Definition.Checks {
		texts[it.ID], order = it.Text, append(order, it.ID)
	}
	for _, id := range order {
		q := question{ID: id, Text: texts[id]}
		for _, a := range w.Answers {
			if a.Item == id {
				q.Answer = &a
			}
		}
		all = append(all, q)
	}
	return all
}

// question is one line of the checklist that a person answers.
type question struct {
	ID, Text string
	Answer   *admin.WaveAnswer
}

var (
	errNoWaveAct = errors.New("there is no such act of a wave")
	errUnseen    = fmt.Errorf("%w: it doesn't say what was looked at", errForm)
)

// actOnWave does one of start, pause, resume, end and answer.
func (p *Page) actOnWave(w http.ResponseWriter, r *http.Request, v *visit) {
	name, reason := r.PathValue("name"), strings.TrimSpace(r.PostFormValue("reason"))
	back := "/waves/" + url.PathEscape(name)
	p.planAct(w, r, v, back, func(ctx context.Context) (err error) {
		switch r.PathValue("act") {
		case "start":
			_, err = v.api.StartWave(ctx, name)
		case "pause":
			_, err = v.api.PauseWave(ctx, name, reason)
		case "resume":
			var said time.Time
			if said, err = time.Parse(time.RFC3339Nano, r.PostFormValue("said")); err != nil {
				return errUnseen
			}
			_, err = v.api.ResumeWave(ctx, name, nil, said, reason)
		case "end":
			_, err = v.api.EndWave(ctx, name, reason)
		case "answer":
			_, err = v.api.AnswerWave(ctx, name, r.PostFormValue("item"), r.PostFormValue("ok") == "yes", reason)
		default:
			err = errNoWaveAct
		}
		return err
	})
}

// actOnPlan stops the plan, or lifts the stop that was shown: what is found while somebody writes why
// is nothing that he has looked at.
func (p *Page) actOnPlan(w http.ResponseWriter, r *http.Request, v *visit) {
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	p.planAct(w, r, v, "/plan", func(ctx context.Context) (err error) {
		switch r.PathValue("act") {
		case "lift":
			seen, err := strconv.ParseUint(r.PostFormValue("revision"), 10, 64)
			if err != nil || seen == 0 {
				return errUnseen
			}
			_, err = v.api.LiftPlan(ctx, seen, reason)
			return err
		case "stop":
			_, err = v.api.StopPlan(ctx, reason)
			return err
		}
		return errNoWaveAct
	})
}

// planAct does what a form wants, once.
func (p *Page) planAct(w http.ResponseWriter, r *http.Request, v *visit, back string, do func(context.Context) error) {
	ctx, ok := once(v)
	if !ok {
		p.refuse(w, r, v, http.StatusUnprocessableEntity, errForm)
		return
	}
	if err := do(ctx); err != nil {
		code := 0
		if errors.Is(err, errUnseen) || errors.Is(err, errNoWaveAct) {
			code = http.StatusUnprocessableEntity
		}
		p.refuse(w, r, v, code, err)
		return
	}
	http.Redirect(w, r, back+"?done=noted", http.StatusSeeOther)
}
