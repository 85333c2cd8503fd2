// Package campaign is the whole system under faults: three nodes, Redis with two replicas and three
// Sentinels, each on a host of its own in a network namespace, each node with a disk of its own;
// Postfix in front, senders by SMTP and LMTP, mail programs by IMAP and submission, two recording
// platforms that also refuse for good, a directory, and people who cut agencies over and back, abort,
// lock, unlock, declare emergencies, enter mailboxes and bring lists of them into force, each thing
// proposed by one and approved by another.
//
// [World] is the ground, [Storm] what is done to it: a storm draws faults and operations from its
// seed and lets them happen side by side, heals everything, and leaves a system that has to come to
// rest by itself and by what alarms ask people to do. [Judge] then goes by recordings alone: what
// platforms took and heard, what senders and clients were answered, the nodes' audit logs, and what
// "trace" says of a sample. It builds upon [cluster.Check].
//
// A [RecallRound] has two Dovecots in the place of the recording platforms: agencies go there and
// back, users work in their mailboxes on both sides, and what came to the target is brought back
// meanwhile. [JudgeRecalls] goes by what is in the mailboxes, by what users did there and by what
// senders were answered.
//
// It promises to find what breaks P1 to P10 in what it has recorded, and to say which
// faults there were ([Tally]). When a fault happens is drawn; what the machine makes of it isn't, so
// a seed repeats the kinds and the order of faults and not each byte.
//
// It refuses to run on this host's own network: namespaces, disks and mounts are made in namespaces
// that tools/campaign enters first, as root. Without them the faults that need them are left out,
// and it says so.
//
// "make campaign" runs it; "make test" runs the tests of the judge alone, with histories into which
// each fault was put.
package campaign
