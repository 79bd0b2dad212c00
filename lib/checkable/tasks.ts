/** Everyday tasks with short answers. `topic` is worded to fit the forms of its type, see `forms`. */
export interface Task {
  type: TaskType
  topic: string
  /** words that fit an answer and do not stand in the topic: asked for or banned by constraints */
  words: readonly string[]
}

export type TaskType = "explain" | "describe" | "advise" | "write" | "suggest" | "compare" | "argue" | "story"

/** Several ways to ask for a task of each type, and the yes/no question that means it. */
export const forms: Readonly<
  Record<TaskType, { ask: readonly ((topic: string) => string)[]; question: (topic: string) => string }>
> = {
  explain: {
    ask: [
      (topic) => `Briefly explain ${topic}.`,
      (topic) => `Tell me in short and in simple terms ${topic}.`,
      (topic) => `A child wants to know ${topic}. Explain it in short.`,
    ],
    question: (topic) => `Does the answer explain ${topic}?`,
  },
  describe: {
    ask: [
      (topic) => `Briefly describe ${topic}.`,
      (topic) => `Write a short description of ${topic}.`,
      (topic) => `Tell me a little about ${topic}.`,
    ],
    question: (topic) => `Does the answer describe ${topic}?`,
  },
  advise: {
    ask: [
      (topic) => `Give me some short advice on ${topic}.`,
      (topic) => `Share a few short tips on ${topic}.`,
      (topic) => `What should I know about ${topic}? Keep it short.`,
    ],
    question: (topic) => `Does the answer give advice on ${topic}?`,
  },
  write: {
    ask: [
      (topic) => `Write ${topic}. Keep it short.`,
      (topic) => `Please write ${topic} in a few lines.`,
      (topic) => `I need your help to write ${topic}. A few lines will do.`,
    ],
    question: (topic) => `Is the answer ${topic}?`,
  },
  suggest: {
    ask: [
      (topic) => `Suggest a few ${topic}.`,
      (topic) => `Name some ${topic}, and be brief.`,
      (topic) => `I am looking for ${topic}. What do you suggest, in short?`,
    ],
    question: (topic) => `Does the answer suggest ${topic}?`,
  },
  compare: {
    ask: [
      (topic) => `Briefly compare ${topic}.`,
      (topic) => `What is the difference between ${topic}, in short?`,
      (topic) => `Write a few lines that compare ${topic}.`,
    ],
    question: (topic) => `Does the answer compare ${topic}?`,
  },
  argue: {
    ask: [
      (topic) => `Say in short why ${topic}.`,
      (topic) => `Give a few short reasons why ${topic}.`,
      (topic) => `Briefly convince a friend that ${topic}.`,
    ],
    question: (topic) => `Does the answer give reasons why ${topic}?`,
  },
  story: {
    ask: [
      (topic) => `Tell a very short story about ${topic}.`,
      (topic) => `Write a tiny story about ${topic}.`,
      (topic) => `Make up a short tale about ${topic}.`,
    ],
    question: (topic) => `Is the answer a story about ${topic}?`,
  },
}

/** One task a line: the topic, then the words. */
const lists: Readonly<Record<TaskType, string>> = {
  explain: `
how a rainbow forms: light, drops, colors, angle
why leaves change their color in autumn: green, cold, sugar, trees
how bees make honey: nectar, flowers, hive, wings
why the sky is blue: light, sunset, scatter, eyes
how a bicycle stays upright: wheels, speed, balance, steer
why we dream at night: brain, memory, rest, mind
how bread rises in the oven: yeast, dough, flour, warm
why ice floats on water: heavy, lake, winter, space
how a vaccine protects the body: germs, defense, doctor, cells
why cats purr: happy, sound, throat, calm
how a letter reaches another country: stamp, plane, address, sorted
why the moon seems to change its shape: shadow, month, orbit, bright
how a candle burns: wick, flame, heat, melt
why we need sleep: energy, body, tired, morning
how a dam makes electricity: river, turbine, power, wall
why onions make people cry: knife, tears, kitchen, sharp
how birds find their way south: stars, winter, path, wings
why the sea is salty: rivers, rocks, rain, minerals
how a microwave heats food: waves, plate, quick, spin
why volcanoes erupt: lava, pressure, deep, smoke
how recycling paper works: bins, pulp, clean, forests
why yawning is catching: friends, brain, copy, sleepy
how a thermometer measures heat: glass, rise, scale, fever
why planes can fly: engine, wings, pilot, speed
how seeds become plants: soil, roots, light, grow
why some metals rust: iron, wet, paint, slow`,
  describe: `
a quiet morning at a fish market: boats, fresh, voices, harbor
the view from a mountain top: clouds, valley, wind, path
a busy train station: crowd, tickets, clock, noise
an old library: shelves, dust, silence, lamp
the first snow of the year: white, cold, children, street
a small island with a lighthouse: waves, rocks, boat, beam
a village bakery before dawn: bread, oven, flour, smell
a thunderstorm in summer: rain, dark, lightning, window
the work of a firefighter: hose, brave, smoke, alarm
a garden in spring: flowers, birds, green, bees
a rainy day in a big city: umbrella, lights, puddles, traffic
a desert at night: stars, sand, silence, cold
the taste of a ripe peach: sweet, juice, soft, summer
a farm at harvest time: wheat, tractor, barn, apples
an autumn walk in the forest: leaves, path, mushrooms, wind
the life of a lighthouse keeper: lamp, storm, lonely, ships
a school playground at noon: games, laughter, friends, ball
a street musician: guitar, coins, song, crowd
the inside of a clock shop: ticking, gears, glass, wood
a harbor in the fog: ships, bells, grey, lamps
a grandmother's kitchen: soup, apron, warm, stories
a winter evening by the fireplace: blanket, tea, snow, glow
a night market: lanterns, spices, music, stalls
a river in the mountains: stones, clear, fish, bridge
a hot air balloon ride: basket, flame, fields, height`,
  advise: `
caring for a cactus: light, water, pot, sand
learning a new language: practice, words, patience, speak
saving money as a student: budget, cheap, cook, books
getting better sleep: dark, phone, quiet, routine
training a puppy: treats, patience, walk, praise
packing for a week by the sea: towel, shoes, light, list
speaking in front of a class: breathe, slowly, notes, smile
keeping a small kitchen tidy: shelf, wash, boxes, daily
starting to run: shoes, slow, water, rest
making new friends in a new town: smile, clubs, neighbors, listen
growing tomatoes on a balcony: sun, soil, water, support
choosing a used bicycle: brakes, price, frame, ride
writing a good email at work: short, polite, subject, clear
taking photos of birds: patience, light, quiet, lens
cooking rice: water, salt, pot, steam
preparing for a job interview: questions, clothes, early, company
reading more books: evening, habit, library, goal
staying calm before an exam: breathe, sleep, plan, walk
moving to another city: boxes, budget, friends, map
saving water at home: shower, leaks, garden, bucket
looking after an old dog: soft, food, walks, doctor
hosting a dinner for friends: menu, music, table, drinks
riding a bike in heavy traffic: helmet, lights, signal, lane
baking a first cake: sugar, oven, butter, recipe
spending less time on the phone: books, alarm, habit, outside
hiking in the rain: boots, jacket, map, slow`,
  write: `
a birthday note to a neighbor: cake, wishes, garden, year
an apology for being late to a meeting: train, sorry, promise, time
a thank-you note to a teacher: lessons, patience, class, year
an invitation to a picnic: park, food, friends, blanket
a notice about a lost cat: collar, street, phone, reward
a short speech for a wedding: love, laughter, friends, glass
a complaint about a cold meal: waiter, soup, refund, service
a welcome message for a new colleague: team, office, coffee, questions
a postcard from the mountains: snow, hiking, view, lake
an advertisement for a bicycle shop: repair, wheels, price, speed
a note asking the neighbors for less noise: music, night, sleep, wall
a farewell message to a team: thanks, memories, future, work
a get-well message to a friend: rest, soup, soon, smile
a poem about the sea: waves, salt, wind, blue
a product text for a wooden chair: comfort, oak, home, style
a reminder about a school trip: lunch, early, shoes, train
a letter to a landlord about a leaking tap: water, repair, kitchen, soon
a review of a small museum: paintings, quiet, ticket, guide
a message to cancel a dentist appointment: sorry, another, date, call
a poem about an old tree: roots, branches, shade, years
a slogan and a short text for a coffee shop: fresh, cozy, morning, beans
a thank-you message for a gift: wonderful, surprise, kind, soon
a sign for a community garden: plants, tools, respect, share
a diary entry about a first day at work: nervous, desk, lunch, names
a cheerful weather report for tomorrow: sunny, clouds, warm, wind`,
  suggest: `
gifts for a friend who likes to cook: knife, spices, apron, book
games for a rainy afternoon: cards, puzzle, family, dice
names for a brown puppy: cute, short, friendly, coat
healthy snacks for a long drive: nuts, fruit, water, carrots
hobbies for someone who likes quiet: reading, garden, paint, puzzle
ways to use old jars: candles, store, flowers, paint
places to visit on a trip to a large city: museum, park, market, tower
themes for a costume party: pirates, space, heroes, animals
book topics for a reading club: history, travel, family, mystery
activities for a family weekend: park, bike, cook, movie
ways to cheer up a sad friend: listen, walk, cake, laugh
simple dinners with potatoes: soup, oven, cheese, onion
indoor plants for a dark room: fern, water, leaves, green
ways to celebrate a small success: dance, dinner, friends, music
drinks for a hot day: lemon, ice, mint, juice
small habits for a better morning: water, stretch, early, bed
topics for a school newspaper: sports, lunch, teachers, pupils
ideas for a homemade birthday card: paper, colors, photo, ribbon
ways to learn the names of new classmates: repeat, faces, games, list
exercises for people who sit all day: stretch, walk, neck, chair
ways to reduce waste at home: bags, jars, repair, compost
surprises for a wedding anniversary: dinner, flowers, letter, trip
fillings for a sandwich: cheese, tomato, egg, lettuce
projects for a beginner in woodworking: shelf, hammer, nails, bench
sounds to use in a scary radio play: wind, door, steps, owl`,
  compare: `
tea and coffee: morning, taste, energy, cup
trains and buses: price, seats, speed, delay
cats and dogs: walk, quiet, loyal, home
summer and winter: snow, beach, warm, holidays
living in a city and living in a village: noise, friends, space, shops
printed books and e-books: paper, screen, light, shelf
swimming and running: water, shoes, muscles, outdoors
apples and oranges: juice, peel, sweet, tree
writing by hand and typing: fast, paper, pen, keys
lakes and seas: salt, waves, boats, deep
cooking at home and eating out: money, time, menu, dishes
renting and owning a flat: money, freedom, repairs, move
a guitar and a piano: strings, keys, carry, loud
butterflies and moths: wings, night, colors, light
hotels and camping: tent, bed, price, nature
bicycles and cars: cheap, fast, road, health
phone calls and letters: voice, paper, quick, wait
butter and oil: taste, pan, bread, health
early birds and night owls: morning, sleep, energy, quiet
gold and silver: price, shine, rings, soft
frogs and toads: skin, jump, water, dry
morning showers and evening baths: relax, fresh, time, water
movies and plays: actors, screen, stage, ticket
hills and mountains: climb, height, snow, view
bread and rice: meal, soft, grain, cook
working alone and working in a team: quiet, ideas, help, speed`,
  argue: `
walking is good for you: heart, fresh, mind, free
people keep diaries: memory, feelings, secret, years
a city needs parks: trees, children, air, rest
children should learn to cook: healthy, skills, family, fun
breakfast matters: energy, morning, brain, food
libraries are still useful: books, quiet, free, learn
a good neighbor is worth a lot: help, trust, tools, talk
music helps people relax: calm, songs, mood, sleep
everyone should plant a tree: shade, birds, future, air
museums should be free: learn, art, everyone, history
laughing is healthy: heart, stress, friends, mood
a short nap can help: energy, focus, tired, minutes
travel makes people wiser: food, culture, friends, world
pets make good company: love, walks, lonely, play
team sports teach more than winning: friends, respect, trust, effort
we should save energy: money, planet, lamps, future
repairing things beats buying new ones: money, waste, skills, pride
learning chess is worth the time: think, patience, plan, fun
old photos are precious: family, memory, years, faces
people like to sing together: voices, joy, choir, breath
a map is better than a guess: lost, time, road, safe
small shops matter to a street: friendly, local, jobs, choice
reading aloud is fun: voice, children, stories, laugh
a cold shower can wake you up: water, skin, morning, brave
handwritten cards still matter: paper, warm, effort, keep`,
  story: `
a lost umbrella: rain, train, stranger, blue
a robot that learns to paint: colors, brush, museum, dream
a mouse in a bakery: cheese, flour, night, crumbs
two friends and a broken boat: river, hammer, waves, laugh
a girl who finds an old key: door, attic, secret, dust
a baker who forgets the salt: bread, village, laugh, morning
a cat that travels by train: ticket, window, station, whiskers
the last lamp in a dark street: night, glow, moth, rain
a fisherman and a talking fish: river, wish, net, silver
a snowman who fears the spring: sun, melt, children, carrot
a clock that runs backwards: time, tower, village, bells
a dragon who is afraid of fire: smoke, water, brave, cave
a gardener and a giant pumpkin: seed, prize, soil, orange
a letter that arrives too late: stamp, years, love, door
a boy who collects clouds: sky, jars, rain, wind
a dog that waits at a bus stop: friend, rain, evening, tail
a tailor with a magic needle: thread, coat, king, silver
a night without stars: dark, lamp, child, hope
a violin that plays alone: music, attic, midnight, strings
a thief who returns everything: night, window, sorry, note
an astronaut who misses the rain: space, window, earth, water
a market where people sell memories: price, smile, child, coins
a teacher and a very quiet pupil: book, voice, class, window
a bridge that nobody crosses: river, fear, village, stone
a bear who opens a honey shop: bees, forest, jars, sweet`,
}

/** All tasks. */
export const tasks: readonly Task[] = (Object.keys(lists) as TaskType[]).flatMap((type) =>
  lists[type]
    .trim()
    .split("\n")
    .map((line) => {
      const [topic, words] = line.split(": ")
      return { type, topic: topic!, words: words!.split(", ") }
    }),
)
