package daemon

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/routing/replica"
	"mailcutover/routing/table"
)

const (
	// tableLook is how often it is looked whether the table is well.
	tableLook = time.Second

	// sayAgain is how often an alarm is raised whose reason stays, also if a person has
	// cleared it.
	sayAgain = time.Minute
)

// watchTable keeps the alarms about the copy of the table and about the lease: they stand
// as long as their reason does.
func (d *Daemon) watchTable() {
	alarms := alarm.NewStanding(d.alarms, sayAgain)
	look := time.NewTicker(tableLook)
	defer look.Stop()
	for {
		texts := tableAlarms(d.replica.Status())
		maps.Copy(texts, d.keeper.Troubles())
		alarms.Set(texts)
		select {
		case <-look.C:
		case <-d.ctx.Done():
			return
		}
	}
}

// tableAlarms says what is wrong with a copy of the table, by alarm.
func tableAlarms(s replica.Status) map[string]string {
	texts := make(map[string]string)
	switch known := s.Position.Incarnation; {
	case s.Open:
	case errors.Is(s.Err, table.ErrEmpty) && known != "":
		texts["table-empty"] = fmt.Sprintf("The table is empty, but this node knows its incarnation %s at revision %d: all mail and logins are put off. Don't fill it anew. Start Redis with its own data; if they are lost, two people fill it from the nodes' copies: mailcutover table bootstrap. A backup is for the case that no node has one.", known, s.Position.Revision)
	default:
		reason := s.Reason
		if s.Err != nil {
			reason += "; " + s.Err.Error()
		}
		texts["table-closed"] = "The table can't be used: all mail and logins are put off. " + reason
	}
	if s.MarksErr != nil {
		texts["marks-unwritten"] = fmt.Sprintf("The table has changed, and this node can't take it over, since its disk doesn't keep it: when its lease is over, all mail and logins are put off here. See to the disk. %s", s.MarksErr)
	}
	for _, id := range s.Regressed {
		texts["agency-regressed/"+string(id)] = fmt.Sprintf("Agency %s is closed: its record in the table is older than one that this node has seen, or of another history. The table lost something: restore it, or find out what.", id)
	}
	for _, id := range s.Missing {
		texts["mapping-missing/"+string(id)] = fmt.Sprintf("Agency %s is closed: its mapping is not in the table, or damaged.", id)
	}
	return texts
}
