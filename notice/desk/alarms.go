package desk

import (
	"context"
	"strconv"
	"strings"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/notice"
	"mailcutover/notice/outbox"
)

const (
	// alarmOver is for how long an alarm must be gone before it is told as over: one that comes
	// and goes is one event.
	alarmOver = 30 * time.Second

	// alarmReturns is the same after a start: alarms are in memory, and what raises them
	// needs its time.
	alarmReturns = 3 * time.Minute

	alarmPrefix = "alarm/"
	driftPrefix = "drift/"
)

// watchAlarms makes events of the node's alarms until ctx ends.
func (d *Desk) watchAlarms(ctx context.Context) {
	w := &alarmWatch{Desk: d, began: time.Now(), missing: make(map[string]time.Time)}
	look := time.NewTicker(d.o.Pace)
	defer look.Stop()
	for {
		if !w.look(ctx) {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

type alarmWatch struct {
	*Desk
	began   time.Time
	missing map[string]time.Time // since when alarms are gone that were told, by their keys
}

// look compares the alarms with those that were told.
func (w *alarmWatch) look(ctx context.Context) bool {
	a := outbox.Addition{Stream: outbox.Node}
	now := time.Now()
	there := make(map[string]bool)
	for _, one := range w.o.Alarms.List() {
		key := alarmPrefix + one.Key
		there[key] = true
		delete(w.missing, key)
		if w.box.Facts(key) != nil {
			continue
		}
		a.Records = append(a.Records, notice.Record{Key: key, Facts: alarmFacts(&one)})
		a.Events = append(a.Events, w.event(notice.AlarmRaised, &one, now))
		if agency, ok := strings.CutPrefix(one.Key, driftPrefix); ok {
			e := w.event(notice.DirectoryDrift, &one, now)
			e.Agency = agency
			a.Events = append(a.Events, e)
		}
	}
	for key := range w.box.Keys() {
		if !strings.HasPrefix(key, alarmPrefix) || there[key] {
			continue
		}
		since, known := w.missing[key]
		if !known {
			since = now
			w.missing[key] = now
		}
		if now.Sub(since) < alarmOver || now.Sub(w.began) < alarmReturns && since.Sub(w.began) < w.o.Pace {
			continue
		}
		delete(w.missing, key)
		one := alarmOf(key, w.box.Facts(key))
		a.Records = append(a.Records, notice.Record{Key: key})
		a.Events = append(a.Events, w.event(notice.AlarmCleared, &one, now))
	}
	return len(a.Events) == 0 || w.put(ctx, a)
}

func (w *alarmWatch) event(t notice.Type, a *alarm.Alarm, at time.Time) notice.Event {
	if t == notice.AlarmRaised || t == notice.DirectoryDrift {
		at = a.Since
	}
	return notice.NewAlarm(w.o.Installation, string(w.o.Node), t, a.Key, a.Text, a.Since, at)
}

func alarmFacts(a *alarm.Alarm) notice.Facts {
	return notice.Facts{"text": a.Text, "since": strconv.FormatInt(a.Since.UnixNano(), 10)}
}

// alarmOf returns the alarm that was told.
func alarmOf(key string, f notice.Facts) alarm.Alarm {
	nanoseconds, _ := strconv.ParseInt(f["since"], 10, 64) // it was written by us
	return alarm.Alarm{Key: strings.TrimPrefix(key, alarmPrefix), Text: f["text"], Since: time.Unix(0, nanoseconds)}
}
