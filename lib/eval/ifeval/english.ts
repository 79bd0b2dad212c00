/** What Punkt knows of a language. Words are in lower case and without their final full stop. */
export interface PunktModel {
  abbreviations: ReadonlySet<string>
  /** Pairs "word next" that hold together over a full stop; numbers are written ##number##. */
  collocations: ReadonlySet<string>
  /** Words that often open a sentence. */
  starters: ReadonlySet<string>
  /** Words also written with a small first letter. */
  ordinary: ReadonlySet<string>
  /** Words also written with a capital inside a sentence. */
  capitalised: ReadonlySet<string>
  /** Words that open sentences with a small letter and are never written with a capital. */
  small: ReadonlySet<string>
}

const list = (text: string) => text.trim().split(/\s+/)

/** Titles, months, states, companies. Neither "etc" nor "e.g" nor "i.e" is among them, as in NLTK's model. */
const abbreviations = `
  adm ala ariz aug ave bros calif chg cie co col colo conn corp cos ct dec dr feb fla fri ft ga gen ill inc jan jr
  kan ky lt ltd maj messrs mg mich minn mr mrs ms nev nov oct ok okla ore pa prof rep reps sen sep sept sr st sw
  tenn tues va vs vt wash wed wis yr
  a.a a.c a.d a.g a.h a.m a.m.e a.s a.t b.f b.v c.i.t c.o.m.b c.v d.c d.h d.w e.f e.h e.l e.m f.g f.j g.d g.f g.k
  h.c h.f h.m i.m.s j.b j.c j.j j.k j.p j.r l.a l.f l.p m.b.a m.d.c m.j n.c n.d n.h n.j n.m n.v n.y p.a.m p.m ph.d
  r.a r.h r.i r.j r.k r.t s.a s.a.y s.c s.g s.p.a s.s t.j u.k u.n u.s u.s.a u.s.s.r w.c w.r w.va w.w
  c d e f g h k l m n p r s t v w`

const collocations = {
  "##number##": `abreast aes business cbot colgate commodities cooper corrections credit dividend financing genentech henley
  insider international leisure letters notable pay-fone pegasus pepper review rj wedgestone who zimmer`,
  b: "edelman levine smith stewart wigton",
  i: "magnin toussie",
  j: "aron fialka walter",
  o: "ludcke",
}

const starters = `
  according although among both but despite even he however i if in indeed instead it many meanwhile moreover most
  nevertheless nonetheless nor sales separately similarly since so some the there these they this though thus
  under when while yet`

/** Common words that newspapers write with a capital only where a sentence starts. */
const openers = `
  able above accordingly adding afterwards ahead almost along already always ancient animal animals anybody anyone
  anything appear ask asked asking available begin behind being believe besides better between beyond body boy
  break bright brother build call came car carefully carry certainly check choose cold compared concerning
  conclusion consider considering contact create currently customer dark date daughter decide deep depending
  develop die different difficult discover doctor does doing done door double draw earlier early easily eight
  either enjoy enough ensure entire especially essentially eventually example examples except experience explain
  explore eye eyes fact feeling feels felt fewer final finally fish flower flowers follow following forward
  frankly friend furthermore gave girl given gives giving goes going happen happy hear helps hence her here hers
  herself him himself historically honestly hot husband idea image imagine important importantly include including
  indeed initially inside instead into item items keeps kept kill knew known language largely learn least lets
  likewise list looked looking lose mainly manager message mind mine minus moon moreover morning mother myself
  naturally need neither nevertheless nonetheless nor normally note nothing number objective okay ones onto
  originally otherwise ought ours ourselves overall page particularly partly pass per personally phone play player
  please position possibly probably problem product professor program provide pull put puts question questions
  quietly rarely receive recent recently regarding remain remember require responsibilities result results right
  runs sad sadly safe same saw section seeing seldom send serve seven similar similarly simple simply single
  sister sit skills slowly so someone sometimes son soon sorry speak specifically spend stand started starting
  step still stories such suddenly suggest surprisingly taking teacher team telling ten thank thanks them
  themselves theory therefore things think thinking thinks though thought through throughout thus tip tips title
  together tomorrow took towards traditionally trees tried tries true try trying type typically understand
  unfortunately unless unlike upon us user uses using various very via wait walk wanted wants warm welcome went
  were wet whenever whereas wherever whether which whichever whole whom wife win within without words worse worst
  writes writing written yes yesterday yet your yourself`

/** Common words that they also write with a capital elsewhere, in names and headlines. */
const mixed = `
  a about according across actually add after again against ago agree all alone also although am amid among an and
  another answer any apart are around art as asks at avoid away back bad based basically be beautiful because been
  before began begins below best big book both bring business busy but buy by called calls can case cat catch
  certain change chapter child children city class clear clearly color come comes coming common company computer
  continue could country cover customers cut data day days definitely despite did director do dog down dry due
  during each easy eat education end even evening every everybody everyone everything expect face fall false
  family father feel few film find finding finds fine first five food for found four free fresh friends from full
  future game general generally get gets getting give go god gone good got government great group grow had half
  hand hard has have having he head health heard heart help hey high his history hit home hope house how however
  human if in includes information introduction is it its itself job join just keep keeping kind king know knowing
  knows lady large last late later law lead leave left less let letter life light like line little live local long
  look looks love low made main major make makes making man many march may maybe me meanwhile meet men might
  modern money month more most mostly mountain move movie much music must my name national natural near never new
  next nice night nine no nobody none not notice now obviously of off offer often old on once one only open or
  order other our out outside over own parents part past pay peace people perhaps photo picture place plus point
  possible power president produce products public queen quickly quite raise rather reach read reading ready real
  really reason reasons report research road room run said say saying says school science sea second see seen sees
  sell service set sets several she short should show shows side since sir six small social software some somebody
  something song special star stars start starts state stay steps stop story street strong student students study
  summary sun support sure system table take taken takes technology tell tells than that the their then there
  these they thing third this those three time to today told too total toward town tree two under university until
  up use used users usually visit voice want war was watch water way we week well what whatever when where while
  who whose why will with woman women word work world would write wrote year years you young`

/**
 * English as NLTK's Punkt model has it: its abbreviations, collocations and starters, and its knowledge of spelling for
 * the commonest thousand words out of 20,000. Words outside the lists count as names. `tests/reference/ifeval.py`
 * measures how often that shows.
 */
export const model: PunktModel = {
  abbreviations: new Set([...list(abbreviations), ". . "]),
  collocations: new Set(
    Object.entries(collocations).flatMap(([first, next]) => list(next).map((w) => `${first} ${w}`)),
  ),
  starters: new Set(list(starters)),
  ordinary: new Set(list(openers + mixed)),
  capitalised: new Set(list(mixed)),
  small: new Set(["administrators"]),
}
