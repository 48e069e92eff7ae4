# How many days of each kind of weather a year had.
days = Hash.new { |years, year| years[year] = Hash.new(0) }
File.foreach("/data/weather.csv").drop(1).each do |line|
  _, date, *, kind = line.chomp.split(",")
  days[date[0, 4]][kind] += 1
end
abort "no weather" if days.empty?
puts "Ruby #{RUBY_VERSION} on #{RUBY_PLATFORM}"
days.sort.each { |year, kinds| puts "#{year}: #{kinds.sort.map { |kind, count| "#{count} #{kind}" }.join(", ")}" }
