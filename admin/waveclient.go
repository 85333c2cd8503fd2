package admin

import (
	"context"
	"net/url"
	"time"
)

// Waves returns all waves, and whether the plan is stopped.
func (c *Client) Waves(ctx context.Context) (Waves, error) {
	return get[Waves](ctx, c, wavesPath, nil)
}

// Wave returns one, with what keeps its next agency from starting.
func (c *Client) Wave(ctx context.Context, name string) (Wave, error) {
	return get[Wave](ctx, c, wavePath(name, ""), nil)
}

// Timetable returns when agencies are likely to be cut over.
func (c *Client) Timetable(ctx context.Context) (Timetable, error) {
	return get[Timetable](ctx, c, timetablePath, nil)
}

// ProposeWave proposes a wave.
func (c *Client) ProposeWave(ctx context.Context, w NewWave) (Proposal, error) {
	return post[Proposal](ctx, c, wavesPath, w)
}

// StartWave starts a wave that others have approved.
func (c *Client) StartWave(ctx context.Context, name string) (Started, error) {
	return post[Started](ctx, c, wavePath(name, "/start"), struct{}{})
}

// PauseWave keeps a wave's next agencies from starting.
func (c *Client) PauseWave(ctx context.Context, name, reason string) (Wave, error) {
	return post[Wave](ctx, c, wavePath(name, "/pause"), map[string]string{"reason": reason})
}

// ResumeWave lets a paused wave go on, if it is paused since said; zero: whenever it was. retry
// names agencies that were aborted and are tried again.
func (c *Client) ResumeWave(ctx context.Context, name string, retry []string, said time.Time, reason string) (Wave, error) {
	body := map[string]any{"reason": reason}
	if !said.IsZero() {
		body["said"] = said
	}
	if len(retry) > 0 {
		body["retry"] = retry
	}
	return post[Wave](ctx, c, wavePath(name, "/resume"), body)
}

// SkipAgency takes an agency out of a wave's order.
func (c *Client) SkipAgency(ctx context.Context, name, agency, reason string) (Wave, error) {
	return post[Wave](ctx, c, wavePath(name, "/skip"), map[string]string{"agency": agency, "reason": reason})
}

// EndWave ends a wave for good.
func (c *Client) EndWave(ctx context.Context, name, reason string) (Wave, error) {
	return post[Wave](ctx, c, wavePath(name, "/end"), map[string]string{"reason": reason})
}

// AnswerWave answers a question of a wave's checklist.
func (c *Client) AnswerWave(ctx context.Context, name, item string, ok bool, note string) (Wave, error) {
	return post[Wave](ctx, c, wavePath(name, "/answers"), map[string]any{"item": item, "ok": ok, "note": note})
}

// StopPlan keeps all waves from starting agencies.
func (c *Client) StopPlan(ctx context.Context, reason string) (Waves, error) {
	return post[Waves](ctx, c, stopPath, map[string]string{"reason": reason})
}

// LiftPlan lifts the stop that has this revision; 0: whichever it is.
func (c *Client) LiftPlan(ctx context.Context, revision uint64, reason string) (Waves, error) {
	in := map[string]any{"reason": reason}
	if revision != 0 {
		in["revision"] = revision
	}
	return post[Waves](ctx, c, stopPath+"/lift", in)
}

func wavePath(name, act string) string { return wavesPath + "/" + url.PathEscape(name) + act }
