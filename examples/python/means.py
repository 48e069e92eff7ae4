"""Mean temperature of each city and month, from a CSV file into another: a script as people have it, with nothing of bacnode in it."""
import collections
import csv
import statistics
import sys

days = collections.defaultdict(list)
with open(sys.argv[1]) as rows:
    for row in csv.DictReader(rows):
        days[row["location"], int(row["date"][5:7])].append((float(row["temp_max"]) + float(row["temp_min"])) / 2)
with open(sys.argv[2], "w") as table:
    print("city,month,mean_c", file=table)
    for (city, month), values in sorted(days.items()):
        print(city, month, f"{statistics.fmean(values):.3f}", sep=",", file=table)
print(f"{len(days)} months with Python {sys.version.split()[0]}")
